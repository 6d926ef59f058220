//! `monitoring/` agrees with itself and with what it watches: metrics, pages, manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fs;
use std::path::Path;

use harness::build::workspace;
use harness::monitoring::{self, Metric};
use promql_parser::parser::{self, Expr, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

fn yaml(path: &Path) -> Value {
    lanekeeper_cli::read_document(path).expect("YAML")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// The name of a rule's alert.
fn alert(rule: &Value) -> Option<&str> {
    rule["alert"].as_str()
}

/// The panels of a dashboard, but for its rows.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = list(&dashboard["panels"]).iter();
    panels.filter(|panel| panel["type"] != "row")
}

/// What asks, as metrics.md calls it, and its query.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for rule in monitoring::rules().expect("rules") {
        let name = alert(&rule).unwrap_or_else(|| text(&rule["record"]));
        queries.push((format!("`{name}`"), text(&rule["expr"]).to_owned()));
    }
    for (name, dashboard) in monitoring::dashboards().expect("dashboards") {
        for panel in panels(&dashboard) {
            let asks = format!("{name}: {}", text(&panel["title"]));
            for target in list(&panel["targets"]) {
                // Grafana puts a range here.
                let query = text(&target["expr"]).replace("$__rate_interval", "1m");
                queries.push((asks.clone(), query));
            }
        }
        for variable in list(&dashboard["templating"]["list"]) {
            let query = text(&variable["query"]).strip_prefix("label_values(");
            let series = query.and_then(|query| query.rsplit_once(", "));
            if let Some((series, _)) = series {
                let asks = format!("{name}: the list of {}", text(&variable["label"]));
                queries.push((asks, series.to_owned()));
            }
        }
    }
    queries
}

/// The selectors of a query.
fn selectors(query: &str) -> Vec<VectorSelector> {
    struct Selectors(Vec<VectorSelector>);

    impl ExprVisitor for Selectors {
        type Error = Infallible;

        fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
            match expr {
                Expr::VectorSelector(selector) => self.0.push(selector.clone()),
                Expr::MatrixSelector(matrix) => self.0.push(matrix.vs.clone()),
                _ => {}
            }
            Ok(true)
        }
    }

    let expr = parser::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut selectors = Selectors(Vec::new());
    let Ok(_) = walk_expr(&mut selectors, &expr);
    selectors.0
}

fn name(selector: &VectorSelector) -> String {
    let name = selector.name.clone();
    name.expect("a selector names its metric")
}

/// The metrics that a query names.
fn metrics_of(query: &str) -> BTreeSet<String> {
    selectors(query).iter().map(name).collect()
}

fn page() -> BTreeMap<String, Metric> {
    let page = monitoring::page().expect("a page").into_iter();
    page.map(|metric| (metric.name.clone(), metric)).collect()
}

/// A series by the name of its metric: a histogram has several.
fn metric_of<'a>(page: &BTreeMap<String, Metric>, series: &'a str) -> &'a str {
    let suffixes = ["_bucket", "_sum", "_count"];
    let histogram = suffixes.iter().find_map(|suffix| {
        let name = series.strip_suffix(suffix)?;
        (page.get(name)?.kind == "histogram").then_some(name)
    });
    histogram.unwrap_or(series)
}

#[test]
fn the_page_names_every_metric_that_a_query_names_and_says_which_do() {
    let page = page();
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (asks, query) in queries() {
        for series in metrics_of(&query) {
            let metric = metric_of(&page, &series).to_owned();
            users.entry(metric).or_default().insert(asks.clone());
        }
    }
    let mut faults = Vec::new();
    for (metric, used_by) in &users {
        let written = page.get(metric).map(|metric| &metric.used_by);
        if written != Some(used_by) {
            let used_by: Vec<_> = used_by.iter().map(String::as_str).collect();
            faults.push(format!("{metric}: {}", used_by.join("; ")));
        }
    }
    for (metric, written) in &page {
        if !written.used_by.is_empty() && !users.contains_key(metric) {
            faults.push(format!("{metric}: no query names it"));
        }
    }
    let faults = faults.join("\n");
    assert!(faults.is_empty(), "metrics.md must say\n{faults}");
}

#[test]
fn the_page_has_all_recorded_metrics_and_all_that_readmes_have() {
    let page = page();
    let mut expected: BTreeSet<String> = monitoring::rules()
        .expect("rules")
        .iter()
        .filter_map(|rule| rule["record"].as_str().map(str::to_owned))
        .collect();
    let recorded = expected.len();
    for readme in ["README.md", "services/README.md"] {
        let readme = fs::read_to_string(workspace().join(readme)).expect("a page");
        let tables = readme
            .lines()
            .skip_while(|line| !line.contains("| metric |"));
        let names = tables.filter_map(|line| {
            let name = line.strip_prefix("| `")?.split(['`', '{']).next()?;
            let is_metric = name.contains('_') && !name.contains(|c: char| c.is_uppercase());
            is_metric.then(|| name.to_owned())
        });
        expected.extend(names);
    }
    assert!(expected.len() > recorded + 20, "{expected:?}");
    let missing: Vec<_> = expected
        .iter()
        .filter(|name| !page.contains_key(*name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn queries_of_the_runbook() -> Vec<String> {
    let runbook = fs::read_to_string(monitoring::file("runbook.md")).expect("a runbook");
    let indented = runbook.lines().filter_map(|line| line.strip_prefix("    "));
    let queries = indented.filter(|line| !line.starts_with('$'));
    queries.map(str::to_owned).collect()
}

/// Somebody else may scrape the same pods, or have a metric of the same name.
#[test]
fn rules_panels_and_runbook_ask_for_the_targets_of_these_monitors_alone() {
    let runbook = queries_of_the_runbook().into_iter();
    let runbook = runbook.map(|query| ("the runbook".to_owned(), query));
    for (asks, query) in queries().into_iter().chain(runbook) {
        for selector in selectors(&query) {
            // What is recorded is of these targets.
            let is_recorded = name(&selector).contains(':');
            let matchers = &selector.matchers.matchers;
            let is_ours = matchers.iter().any(|matcher| matcher.name == "lanekeeper");
            assert!(is_recorded || is_ours, "{asks}: {query}");
        }
    }
}

#[test]
fn the_runbook_asks_for_metrics_that_there_are() {
    let page = page();
    let queries = queries_of_the_runbook();
    assert!(queries.len() > 20, "{queries:#?}");
    for query in queries {
        for series in metrics_of(&query) {
            assert!(page.contains_key(metric_of(&page, &series)), "{query}");
        }
    }
}

#[test]
fn every_alert_says_what_is_wrong_how_much_and_where_to_read_on() {
    let runbook = fs::read_to_string(monitoring::file("runbook.md")).expect("a runbook");
    let sections: BTreeMap<_, _> = runbook
        .split("\n## ")
        .skip(1)
        .map(|section| section.split_once('\n').expect("a title"))
        .collect();
    let rules = monitoring::rules().expect("rules");
    let alerts: BTreeSet<_> = rules.iter().filter_map(alert).collect();
    assert_eq!(sections.keys().copied().collect::<BTreeSet<_>>(), alerts);
    for rule in rules.iter().filter(|rule| alert(rule).is_some()) {
        let name = text(&rule["alert"]);
        assert!(rule["for"].is_string(), "{name}");
        let severity = text(&rule["labels"]["severity"]);
        assert!(
            ["info", "warning", "critical"].contains(&severity),
            "{name}"
        );
        let annotations = &rule["annotations"];
        assert!(!text(&annotations["summary"]).is_empty(), "{name}");
        // A state has no size.
        let expr = text(&rule["expr"]);
        let is_state = expr.contains(" == ") || expr.contains("absent(");
        let description = text(&annotations["description"]);
        assert_eq!(description.contains("$value"), !is_state, "{name}");
        let anchor = name.to_lowercase();
        let page = "https://git.example/lanekeeper/monitoring/runbook.md";
        assert_eq!(annotations["runbook_url"], format!("{page}#{anchor}"));
        let section = sections[name];
        for part in ["**What it means.**", "**How to look", "hat to do.**"] {
            assert!(section.contains(part), "{name}: {part}");
        }
        let shows = section.contains("\n    ") || section.contains("](#");
        assert!(shows, "{name}: a query or a command");
    }
}

#[test]
fn every_alert_has_a_case_that_fires_and_one_that_does_not_and_every_record_a_value() {
    let (mut fires, mut silent, mut asked) = <(BTreeSet<_>, BTreeSet<_>, BTreeSet<_>)>::default();
    for file in monitoring::files("rules/tests", "yaml").expect("tests") {
        for test in list(&yaml(&file)["tests"]) {
            for case in list(&test["alert_rule_test"]) {
                let name = text(&case["alertname"]).to_owned();
                match list(&case["exp_alerts"]) {
                    [] => silent.insert(name),
                    _ => fires.insert(name),
                };
            }
            for case in list(&test["promql_expr_test"]) {
                asked.extend(metrics_of(text(&case["expr"])));
            }
        }
    }
    for rule in monitoring::rules().expect("rules") {
        match alert(&rule) {
            Some(name) => assert!(fires.contains(name) && silent.contains(name), "{name}"),
            None => assert!(asked.contains(text(&rule["record"])), "{rule}"),
        }
    }
}

#[test]
fn the_cluster_gets_the_same_rules() {
    let file = monitoring::file("cluster/rules.yaml");
    let manifest = yaml(&file);
    let files = monitoring::files("rules", "yaml").expect("rules");
    let groups: Vec<_> = files
        .iter()
        .flat_map(|file| list(&yaml(file)["groups"]).to_vec())
        .collect();
    assert_eq!(list(&manifest["spec"]["groups"]), groups);
    assert_eq!(
        fs::read_to_string(file).expect("a manifest"),
        monitoring::prometheus_rule().expect("rules"),
        "`cargo xtask rules` makes it anew"
    );
}

#[test]
fn the_version_that_others_are_compared_with_is_the_baseline_of_the_policy() {
    let mut rules = monitoring::rules().expect("rules");
    rules.retain(|rule| rule["record"] == "deployment:baseline_version:info");
    let [rule] = &rules[..] else {
        panic!("one rule: {rules:?}");
    };
    let policy = workspace().join("wasm-plugins/policies/gateway.yaml");
    for rollout in list(&yaml(&policy)["rollouts"]) {
        let mut versions = list(&rollout["versions"]).iter();
        let baseline = versions.find(|version| version["baseline"] == true);
        assert_eq!(
            baseline.expect("a baseline")["name"],
            rule["labels"]["version"]
        );
    }
    // And the name stands nowhere else.
    for (asks, query) in queries() {
        let named = ["stable", "canary"].iter().any(|name| query.contains(name));
        assert!(!named, "{asks}");
    }
}

/// The monitor of a name.
fn monitor(name: &str) -> Value {
    let monitors = lanekeeper_cli::read_documents(&monitoring::file("cluster/monitors.yaml"));
    let mut monitors = monitors.expect("YAML").into_iter();
    let found = monitors.find(|monitor| monitor["metadata"]["name"] == name);
    found.expect(name)["spec"].clone()
}

#[test]
fn every_pod_of_the_applications_is_scraped_under_the_name_of_its_tier() {
    let monitor = monitor("lanekeeper-services");
    let selected = &monitor["selector"]["matchExpressions"][0];
    assert_eq!(selected["operator"], "Exists");
    let mut tiers = BTreeSet::new();
    let mut namespaces = Vec::new();
    for folder in yaml(&workspace().join("istio/applications/kustomization.yaml"))["resources"]
        .as_array()
        .expect("applications")
    {
        let folder = workspace().join("istio/applications").join(text(folder));
        let settings = yaml(&folder.join("kustomization.yaml"));
        namespaces.push(settings["namespace"].clone());
        for file in list(&settings["resources"]) {
            let objects = lanekeeper_cli::read_documents(&folder.join(text(file)));
            for object in objects.expect("YAML") {
                if object["kind"] == "Deployment" {
                    let labels = &object["spec"]["template"]["metadata"]["labels"];
                    assert!(labels[text(&selected["key"])].is_string(), "{object}");
                    let tier = &labels[text(&monitor["jobLabel"])];
                    tiers.insert(text(tier).to_owned());
                }
            }
        }
    }
    assert_eq!(
        monitor["namespaceSelector"]["matchNames"],
        Value::from(namespaces)
    );
    for (asks, query) in queries() {
        for part in query.split("job=\"").skip(1) {
            let tier = part.split('"').next().expect("a name");
            assert!(tiers.contains(tier), "{asks}: {tier}");
        }
    }
}

#[test]
fn the_gateway_that_is_scraped_is_the_one_that_has_the_plugin() {
    let monitor = monitor("lanekeeper-gateway");
    let plugin = yaml(&workspace().join("wasm-plugins/gateway.yaml"));
    let namespaces = Value::from(vec![plugin["metadata"]["namespace"].clone()]);
    assert_eq!(monitor["namespaceSelector"]["matchNames"], namespaces);
    assert_eq!(monitor["selector"], plugin["spec"]["selector"]);
}

#[test]
fn each_colour_of_the_translation_api_is_scraped_once() {
    let monitor = monitor("lanekeeper-translation");
    let endpoint = &monitor["endpoints"][0];
    let mut selected = Vec::new();
    for step in ["01-blue", "02-green"] {
        let file = format!("istio/blue-green/{step}.yaml");
        let objects = lanekeeper_cli::read_documents(&workspace().join(file)).expect("YAML");
        for service in objects.iter().filter(|object| object["kind"] == "Service") {
            let (metadata, labels) = (&service["metadata"], &service["metadata"]["labels"]);
            let namespaces = Value::from(vec![metadata["namespace"].clone()]);
            assert_eq!(monitor["namespaceSelector"]["matchNames"], namespaces);
            let app = &monitor["selector"]["matchLabels"]["app"];
            let expression = &monitor["selector"]["matchExpressions"][0];
            assert_eq!(expression["operator"], "Exists");
            if labels["app"] == *app && labels[text(&expression["key"])].is_string() {
                assert_eq!(service["spec"]["ports"][0]["name"], endpoint["port"]);
                selected.push(service["spec"]["selector"]["version"].clone());
            }
        }
    }
    assert_eq!(selected, ["blue", "green"]);
}

#[test]
fn monitors_keep_the_metrics_that_are_used() {
    let keeps = |monitor: &str, metric: &str| {
        let monitor = self::monitor(monitor);
        let keep = &monitor["podMetricsEndpoints"][0]["metricRelabelings"][0];
        assert_eq!(keep["action"], "keep");
        let prefixes = text(&keep["regex"]).strip_suffix(".*").expect("prefixes");
        let mut prefixes = prefixes.trim_matches(['(', ')']).split('|');
        prefixes.any(|prefix| metric.starts_with(prefix))
    };
    for (name, metric) in page() {
        let by_proxy = metric.exporter.contains("gateway") || metric.exporter.contains("sidecar");
        let by_service = metric.exporter.contains("service");
        if by_proxy || by_service {
            assert!(keeps("lanekeeper-services", &name), "{name}");
        }
        if metric.exporter.contains("gateway") {
            assert!(keeps("lanekeeper-gateway", &name), "{name}");
        }
    }
}

#[test]
fn all_that_there_is_is_applied() {
    let settings = yaml(&monitoring::file("kustomization.yaml"));
    let names = |folder: &str, extension| {
        let files = monitoring::files(folder, extension).expect("files");
        let names = files.into_iter().map(|file| {
            let name = file.file_name().and_then(|name| name.to_str());
            format!("{folder}/{}", name.expect("a name"))
        });
        Value::from(names.collect::<Vec<_>>())
    };
    assert_eq!(settings["resources"], names("cluster", "yaml"));
    let maps = &settings["configMapGenerator"];
    assert_eq!(maps[0]["files"], names("dashboards", "json"));
    for file in list(&settings["secretGenerator"][0]["files"]) {
        assert!(monitoring::file(text(file)).is_file(), "{file}");
    }
}

#[test]
fn dashboards_show_units_and_use_their_variables() {
    let mut seen = BTreeSet::new();
    for (name, dashboard) in monitoring::dashboards().expect("dashboards") {
        assert!(seen.insert(text(&dashboard["uid"]).to_owned()), "{name}");
        let mut ids = BTreeSet::new();
        for panel in panels(&dashboard) {
            let title = text(&panel["title"]);
            assert!(ids.insert(panel["id"].to_string()), "{name}: {title}");
            let unit = &panel["fieldConfig"]["defaults"]["unit"];
            assert!(unit.is_string(), "{name}: {title}");
            let own = std::iter::once(panel).chain(list(&panel["targets"]));
            for asks in own {
                assert_eq!(
                    asks["datasource"]["uid"], "${datasource}",
                    "{name}: {title}"
                );
            }
            for target in list(&panel["targets"]) {
                let (expr, unit) = (text(&target["expr"]), text(unit));
                let per_minute = expr.contains("rate(") && expr.ends_with("* 60");
                assert_eq!(per_minute, unit == "cpm", "{name}: {title}");
            }
        }
        let shown = dashboard["panels"].to_string();
        for variable in list(&dashboard["templating"]["list"]) {
            let variable = text(&variable["name"]);
            let used = [format!("${variable}"), format!("${{{variable}}}")];
            assert!(
                used.iter().any(|used| shown.contains(used)),
                "{name}: {variable}"
            );
        }
    }
}
