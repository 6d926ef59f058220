//! The image tag tells how far a build has come: who built it, from which branch.

use std::process::Command;

use anyhow::{Context, Result, bail};
use harness::build;

/// What git and the environment say about a build.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// Whether a CI system builds.
    ci: bool,
    /// The commit, abbreviated.
    commit: String,
    /// Whether files differ from it.
    changed: bool,
    /// The branch that is checked out, if it is one.
    branch: Option<String>,
    /// The tag of the commit, if it is a version.
    version: Option<String>,
}

impl Origin {
    pub(super) fn find() -> Result<Self> {
        let text = |args: &[&str]| git(args).map(|out| (!out.is_empty()).then_some(out));
        Ok(Self {
            ci: std::env::var("CI").is_ok_and(|value| value == "true"),
            commit: git(&["rev-parse", "--short=12", "HEAD"])
                .context("an image tag names the commit; say --tag where there is none")?,
            changed: text(&["status", "--porcelain"])?.is_some(),
            branch: text(&["branch", "--show-current"])?,
            version: text(&["tag", "--points-at", "HEAD", "--list", "v[0-9]*"])?
                .and_then(|tags| Some(tags.lines().next()?.to_owned())),
        })
    }

    /// | what is built | tag |
    /// | --- | --- |
    /// | anything outside CI | `local-<commit>`, with `-changed` if files differ from it |
    /// | a commit that is tagged `v1.2.3` | `release-1.2.3` |
    /// | `main` and `staging/*`: what is to be released | `staging-<commit>` |
    /// | every other branch, pull requests | `dev-<commit>` |
    pub(super) fn tag(&self) -> String {
        let commit = &self.commit;
        if !self.ci {
            let changed = if self.changed { "-changed" } else { "" };
            return format!("local-{commit}{changed}");
        }
        if let Some(version) = &self.version {
            return format!("release-{}", version.trim_start_matches('v'));
        }
        match self.branch.as_deref() {
            Some(branch) if branch == "main" || branch.starts_with("staging/") => {
                format!("staging-{commit}")
            }
            _ => format!("dev-{commit}"),
        }
    }
}

fn git(args: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.args(args).current_dir(build::workspace());
    let output = command.output().context("cannot run git")?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A tag as registries take it.
pub(super) fn parse(text: &str) -> Result<String, String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
    if good {
        Ok(text.to_owned())
    } else {
        Err("a tag: at most 128 of A-Z, a-z, 0-9, _, . and -, not beginning with . or -".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_tells_how_far_a_build_has_come() {
        let local = Origin {
            commit: "0123abc".to_owned(),
            branch: Some("main".to_owned()),
            ..Origin::default()
        };
        let ci = |branch: Option<&str>, version: Option<&str>| Origin {
            ci: true,
            branch: branch.map(str::to_owned),
            version: version.map(str::to_owned),
            ..local.clone()
        };
        assert_eq!(local.tag(), "local-0123abc");
        let changed = Origin {
            changed: true,
            ..local.clone()
        };
        assert_eq!(changed.tag(), "local-0123abc-changed");
        assert_eq!(ci(Some("develop"), None).tag(), "dev-0123abc");
        assert_eq!(ci(Some("feature/quota"), None).tag(), "dev-0123abc");
        assert_eq!(ci(None, None).tag(), "dev-0123abc");
        assert_eq!(ci(Some("main"), None).tag(), "staging-0123abc");
        assert_eq!(ci(Some("staging/1.2"), None).tag(), "staging-0123abc");
        assert_eq!(ci(Some("main"), Some("v1.2.3")).tag(), "release-1.2.3");
        assert_eq!(ci(None, Some("v1.2.3-rc.1")).tag(), "release-1.2.3-rc.1");
    }

    #[test]
    fn what_registries_refuse_is_no_tag() {
        for good in ["local-0123abc", "release-1.2.3", "_x"] {
            assert_eq!(parse(good), Ok(good.to_owned()));
        }
        for bad in ["", "-x", ".x", "feature/x", "a b", &"x".repeat(129)] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
