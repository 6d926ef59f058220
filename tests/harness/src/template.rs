//! Fills in the templates of `envoy/`.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail, ensure};

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
    let mut rendered = String::with_capacity(template.len());
    let mut used = BTreeSet::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            let line = template[..template.len() - after.len()].lines().count();
            bail!("line {line}: {{{{ without }}}}");
        };
        let Some((name, value)) = values.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = values.iter().map(|(name, _)| *name).collect();
            bail!(
                "{{{{{name}}}}}: no such value; there are {}",
                known.join(", ")
            );
        };
        used.insert(*name);
        rendered += before;
        rendered += value;
        rest = after;
    }
    rendered += rest;
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
