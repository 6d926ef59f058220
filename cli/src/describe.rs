//! Says in words what a policy holds.

use lanekeeper_policy::Quota;

/// What a quota admits: `120 a minute by user`.
pub fn limit_of(quota: &Quota) -> String {
    let period = match quota.period() {
        1 => "a second".to_owned(),
        60 => "a minute".to_owned(),
        3_600 => "an hour".to_owned(),
        86_400 => "a day".to_owned(),
        seconds if seconds.is_multiple_of(3_600) => format!("in {}h", seconds / 3_600),
        seconds if seconds.is_multiple_of(60) => format!("in {}m", seconds / 60),
        seconds => format!("in {seconds}s"),
    };
    let key: Vec<String> = quota.key().collect();
    let enforcement = match quota.enforcement() {
        "enforce" => String::new(),
        other => format!(" ({other})"),
    };
    format!(
        "{} {period} by {}{enforcement}",
        quota.limit(),
        key.join(" and ")
    )
}
