//! Asks a Prometheus, wherever it runs, by its HTTP API.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http::{self, Request};

/// A Prometheus.
#[derive(Clone, Debug)]
pub struct Api {
    address: String,
}

/// A series at one moment.
pub type Sample = (Value, f64);

impl Api {
    /// The one at `host:port`.
    pub fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
        }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What a query finds now.
    pub fn query(&self, query: &str) -> Result<Vec<Sample>> {
        let data = self.ask("query", &[("query", query)])?;
        let result = &data["result"];
        if data["resultType"] == "scalar" {
            return Ok(vec![(json!({}), number(&result[1])?)]);
        }
        let series = result.as_array().context("no vector")?.iter();
        series
            .map(|series| Ok((series["metric"].clone(), number(&series["value"][1])?)))
            .collect()
    }

    /// The alerts that are pending or firing, as Prometheus has them.
    pub fn alerts(&self) -> Result<Vec<Value>> {
        let data = self.ask("alerts", &[])?;
        Ok(data["alerts"].as_array().context("no alerts")?.clone())
    }

    /// The names of the alerts that were in this state within the last hour.
    pub fn alerts_of_late(&self, state: &str) -> Result<Vec<String>> {
        let seen = format!(r#"last_over_time(ALERTS{{alertstate="{state}"}}[1h])"#);
        let seen = self.query(&format!("group by (alertname) ({seen})"))?;
        let names = seen
            .iter()
            .filter_map(|(labels, _)| labels["alertname"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// The names of all metrics.
    pub fn names(&self) -> Result<Vec<String>> {
        let names = self.ask("label/__name__/values", &[])?;
        Ok(serde_json::from_value(names)?)
    }

    /// The rules that are not evaluated as they should be.
    pub fn unhealthy_rules(&self) -> Result<Vec<Value>> {
        let data = self.ask("rules", &[])?;
        let groups = data["groups"].as_array().context("no groups")?.iter();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        Ok(rules
            .filter(|rule| rule["health"] != "ok")
            .cloned()
            .collect())
    }

    /// `data` of an answer.
    pub fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let words = parameters.iter().map(|(name, value)| {
            // Every byte, so that none has a meaning.
            let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            format!("{name}={value}")
        });
        let query = words.collect::<Vec<_>>().join("&");
        let request = Request::get(&format!("/api/v1/{what}?{query}"));
        let answer = http::send(&self.address, &request)?;
        let body: Value = serde_json::from_slice(&answer.body)
            .with_context(|| format!("{what}: {}", answer.text()))?;
        ensure!(body["status"] == "success", "{what}: {}", body["error"]);
        Ok(body["data"].clone())
    }
}

fn number(value: &Value) -> Result<f64> {
    let text = value.as_str().context("no number")?;
    // +Inf, -Inf and NaN are numbers to Rust, too.
    text.parse().with_context(|| format!("{text}: no number"))
}
