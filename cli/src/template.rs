//! The templates of `envoy/`.

/// `template` with each `{{NAME}}` replaced by what `value_of` says of that name.
///
/// # Errors
/// A name without a value, or braces that do not close.
pub fn fill(
    template: &str,
    value_of: &mut dyn FnMut(&str) -> Option<String>,
) -> Result<String, String> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            let line = template[..template.len() - after.len()].lines().count();
            return Err(format!("line {line}: {{{{ without }}}}"));
        };
        let value = value_of(name).ok_or_else(|| format!("{{{{{name}}}}}: no such value"))?;
        filled += before;
        filled += &value;
        rest = after;
    }
    filled += rest;
    Ok(filled)
}
