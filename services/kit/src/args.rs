//! Settings that every service has.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser};

/// The settings of this process; a bad one ends it. `--help` shows no values of the environment, for
/// one may hold a password.
pub fn settings<A: Parser>() -> A {
    let command = A::command().mut_args(|arg| arg.hide_env_values(true));
    A::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// Settings that every service has. `--help` lists them with the environment variables.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// The version of the application that this process belongs to, such as stable or canary
    #[arg(long, env, default_value = "dev")]
    pub version: Version,

    /// How long a request may take, its body included
    #[arg(long, env, default_value = "10s", value_parser = deadline)]
    pub request_timeout: Duration,

    /// How long requests in flight may take to finish after SIGTERM or SIGINT
    #[arg(long, env, default_value = "20s", value_parser = deadline)]
    pub shutdown_timeout: Duration,

    /// Ask the service that listens here whether it is well, and end: for health checks
    #[arg(long)]
    pub healthcheck: bool,
}

/// The name of a version: a DNS-1123 label, so that it can be a Kubernetes label and a header value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl FromStr for Version {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let whole = (1..=63).contains(&name.len()) && name.chars().all(allowed);
        if whole && !name.starts_with('-') && !name.ends_with('-') {
            Ok(Self(name.to_owned()))
        } else {
            Err("allowed are 1 to 63 of a-z, 0-9 and -, neither beginning nor ending with -".into())
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses a time limit such as `500ms` or `5s`.
pub fn deadline(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err("allowed is a time above zero, such as 500ms or 5s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_dns_label() {
        for good in ["stable", "v2", "2", "a-b", &"x".repeat(63)] {
            assert!(good.parse::<Version>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "Stable",
            "a.b",
            "a b",
            "é",
            "a\r\nb",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_deadline_has_a_unit_and_is_above_zero() {
        assert_eq!(deadline("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "5", "0s", "-1s", "soon"] {
            assert!(deadline(bad).is_err(), "{bad:?}");
        }
    }
}
