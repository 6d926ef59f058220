//! What came of it: the table, and whether the targets are met.

use super::variants::{EMPTY, PEER, VARIANTS, WINDOW};

/// What quotas may cost at most, as a multiple of another variant's requests.
const TARGETS: [(&str, f64, &str); 2] = [
    (EMPTY, 1.30, "an empty filter"),
    (PEER, 1.05, "Lua + local_ratelimit"),
];

/// The microseconds of a variant's request, in each round.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) rounds: Vec<f64>,
}

/// The variants that were measured, each in the same rounds.
pub(crate) struct Report<'m>(pub(crate) &'m [Measured]);

impl Report<'_> {
    pub(crate) fn table(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:10} {:>10}  {:13}{:>8}{:>12}",
            "variant", "µs/request", "quartiles", "/ empty", "/ lua-limit"
        )];
        for measured in self.0 {
            let [first, median, third] = quartiles(&measured.rounds);
            let about = VARIANTS.iter().find(|v| v.name == measured.name);
            lines.push(format!(
                "{:10} {median:>10.2}  {:13}{:>8}{:>12}  {}",
                measured.name,
                format!("{first:.2}-{third:.2}"),
                shown(self.ratio(measured.name, EMPTY)),
                shown(self.ratio(measured.name, PEER)),
                about.map_or("", |variant| variant.about)
            ));
        }
        lines
    }

    /// The targets in words, and whether all are met; `None` where not all of it was measured.
    pub(crate) fn targets(&self) -> (String, Option<bool>) {
        let ratios = TARGETS.map(|(other, _, _)| self.ratio(WINDOW, other));
        let targets = TARGETS.iter().zip(ratios);
        let words = targets.clone().map(|((_, most, of), ratio)| {
            let verdict = match ratio {
                Some(ratio) if ratio <= *most => "met",
                Some(_) => "NOT met",
                None => "not measured",
            };
            format!("at most {most:.2} of {of}: {}, {verdict}", shown(ratio))
        });
        let words = words.collect::<Vec<_>>().join("; ");
        let met = targets
            .map(|((_, most, _), ratio)| Some(ratio? <= *most))
            .collect::<Option<Vec<_>>>();
        let met = met.map(|met| met.into_iter().all(|met| met));
        (format!("Targets of `{WINDOW}`: {words}"), met)
    }

    /// What a request costs as a multiple of another variant's: the median of the rounds, in each
    /// of which both saw the machine in the same state.
    fn ratio(&self, name: &str, of: &str) -> Option<f64> {
        let rounds = |name| Some(&self.0.iter().find(|measured| measured.name == name)?.rounds);
        let pairs = rounds(name)?.iter().zip(rounds(of)?);
        let ratios: Vec<f64> = pairs.map(|(ours, theirs)| ours / theirs).collect();
        (!ratios.is_empty()).then(|| quartiles(&ratios)[1])
    }
}

fn shown(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// First quartile, median, third quartile.
fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|share| {
        let Some(last) = values.len().checked_sub(1) else {
            return f64::NAN;
        };
        let place = share * last as f64;
        let (below, above) = (
            values[place.floor() as usize],
            values[place.ceil() as usize],
        );
        below + (above - below) * place.fract()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &'static str, rounds: &[f64]) -> Measured {
        let rounds = rounds.to_vec();
        Measured { name, rounds }
    }

    #[test]
    fn quartiles_lie_between_the_values() {
        assert_eq!(quartiles(&[5.0, 1.0, 4.0, 2.0, 3.0]), [2.0, 3.0, 4.0]);
        assert_eq!(quartiles(&[1.0, 2.0]), [1.25, 1.5, 1.75]);
        assert_eq!(quartiles(&[7.0]), [7.0; 3]);
    }

    #[test]
    fn ratios_are_those_of_the_same_round() {
        // In the second round, the machine was twice as slow.
        let all = [
            measured(EMPTY, &[10.0, 20.0]),
            measured(WINDOW, &[12.0, 24.0]),
            measured(PEER, &[12.0, 24.0]),
        ];
        let report = Report(&all);
        assert_eq!(report.ratio(WINDOW, EMPTY), Some(1.2));
        assert_eq!(report.targets().1, Some(true));
        assert_eq!(report.table().len(), 4);
    }

    #[test]
    fn a_target_that_is_missed_or_was_not_measured_is_not_met() {
        let all = [
            measured(EMPTY, &[10.0]),
            measured(WINDOW, &[14.0]),
            measured(PEER, &[14.0]),
        ];
        let (words, met) = Report(&all).targets();
        assert!(
            words.contains("1.40, NOT met") && words.contains("1.00, met"),
            "{words}"
        );
        assert_eq!(met, Some(false));
        assert_eq!(Report(&all[..2]).targets().1, None);
    }
}
