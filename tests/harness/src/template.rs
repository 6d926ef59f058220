//! Fills in the templates of `envoy/`.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, anyhow, ensure};
use lanekeeper_cli::template::fill;

use crate::build;

/// A file of `envoy/`, filled in.
pub fn file(name: &str, values: &[(&str, &str)]) -> Result<String> {
    let file = build::workspace().join("envoy").join(name);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    render(&text, values).with_context(|| file.display().to_string())
}

/// `template` with each `{{NAME}}` replaced by the value of that name. Every placeholder must have
/// a value and every value a placeholder: what is missing in Envoy would only show in traffic.
pub fn render(template: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut used = BTreeSet::new();
    let rendered = fill(template, &mut |name| {
        let (name, value) = values.iter().find(|(known, _)| *known == name)?;
        used.insert(*name);
        Some((*value).to_owned())
    });
    let known: Vec<_> = values.iter().map(|(name, _)| *name).collect();
    let rendered = rendered.map_err(|error| match error.ends_with("no such value") {
        true => anyhow!("{error}; there are {}", known.join(", ")),
        false => anyhow!(error),
    })?;
    let unused: Vec<_> = values
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !used.contains(name))
        .collect();
    ensure!(
        unused.is_empty(),
        "no placeholder for {}",
        unused.join(", ")
    );
    Ok(rendered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_become_values() {
        let rendered = render("a: {{A}}, b: {{B}}{{A}}\n", &[("A", "1"), ("B", "{x}")]);
        assert_eq!(rendered.expect("all known"), "a: 1, b: {x}1\n");
        assert_eq!(
            render("{ a: { b: 1 } }", &[]).expect("none"),
            "{ a: { b: 1 } }"
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let error =
            |template, values: &[_]| render(template, values).expect_err("a fault").to_string();
        assert_eq!(
            error("{{PORT}}", &[("HOST", "h")]),
            "{{PORT}}: no such value; there are HOST"
        );
        assert_eq!(
            error("{{A}}", &[("A", "1"), ("B", "2")]),
            "no placeholder for B"
        );
        assert_eq!(error("x\n{{A", &[("A", "1")]), "line 2: {{ without }}");
    }
}
