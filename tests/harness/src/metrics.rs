//! Metrics in the text that Prometheus would scrape.

/// The sum of a metric over the series that have these labels, and maybe others; `None` if there is
/// no such series.
pub fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let matching = series(text, name).filter(|(found, _)| {
        let mut labels = labels.iter();
        labels.all(|label| found.contains(label))
    });
    let values: Vec<u64> = matching.map(|(_, value)| value).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// The value of the series that has all of these labels and no others.
pub fn exactly(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let mut wanted = labels.to_vec();
    wanted.sort_unstable();
    series(text, name).find_map(|(mut found, value)| {
        found.sort_unstable();
        (found == wanted).then_some(value)
    })
}

/// The series of a metric whose values are whole numbers, with their labels.
fn series<'a>(text: &'a str, name: &str) -> impl Iterator<Item = (Vec<(&'a str, &'a str)>, u64)> {
    text.lines().filter_map(move |line| {
        let (series, value) = line.rsplit_once(' ')?;
        let labels = match series.strip_prefix(name)? {
            "" => vec![],
            braced => labels(braced.strip_prefix('{')?.strip_suffix('}')?)?,
        };
        Some((labels, value.parse().ok()?))
    })
}

/// `a="1",b="2"`; `None` if it is not of this form.
fn labels(mut text: &str) -> Option<Vec<(&str, &str)>> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        // Values that hold a quotation mark are nobody's here.
        let (value, rest) = rest.split_once('"')?;
        labels.push((name, value));
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE a counter\n\
                        a{version=\"x\",kind=\"1\"} 1\n\
                        a{other_version=\"x\",kind=\"2\"} 2\n\
                        a{version=\"x\",kind=\"3\",} 4\n\
                        a_total{version=\"x\"} 8\n\
                        plain 16\n\
                        braced{} 32\n";

    #[test]
    fn a_label_is_found_by_its_whole_name() {
        assert_eq!(sum(TEXT, "a", &[("version", "x")]), Some(5));
        assert_eq!(sum(TEXT, "a", &[]), Some(7));
        assert_eq!(sum(TEXT, "a", &[("version", "y")]), None);
        assert_eq!(sum(TEXT, "plain", &[]), Some(16));
    }

    #[test]
    fn a_series_is_found_by_all_of_its_labels() {
        let labels = [("kind", "1"), ("version", "x")];
        assert_eq!(exactly(TEXT, "a", &labels), Some(1));
        assert_eq!(exactly(TEXT, "a", &labels[1..]), None);
        assert_eq!(exactly(TEXT, "braced", &[]), Some(32));
    }
}
