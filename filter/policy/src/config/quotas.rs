//! Turns the quotas of the document into those of the policy.

use super::compile::{hosts_of_clients, names_are_used_once};
use super::document::{AlgorithmName, Memory, QuotaDocument};
use super::fault::Faults;
use crate::quota::algorithm::{Algorithm, MAX_WINDOW, SECOND};
use crate::quota::key::Part;
use crate::quota::place::size;
use crate::quota::{Match, Quota, Table};

/// Places of a table, unless the policy says how many keys there are.
const MOST_PLACES: usize = 64 << 10;
/// The size of a place that is read and written at little cost.
const PLACE: usize = 4 << 10;

pub(crate) fn quotas(documents: Vec<QuotaDocument>, faults: &mut Faults) -> Vec<Quota> {
    let names: Vec<_> = documents.iter().map(|document| &document.name).collect();
    names_are_used_once(&names, "quotas", faults);
    let documents = documents.into_iter().enumerate();
    documents
        .map(|(index, document)| quota(document, &format!("quotas[{index}]"), faults))
        .collect()
}

fn quota(document: QuotaDocument, path: &str, faults: &mut Faults) -> Quota {
    let at = |field: &str| format!("{path}.{field}");
    let key: Vec<Part> = document.key.into_iter().map(|part| part.0).collect();
    if key.is_empty() && faults.none_under(&at("key")) {
        let allowed = "at least one of user, path, address, header:<name>";
        faults.add_text(&at("key"), "[]", allowed);
    }
    let templates = !document.path_templates.is_empty();
    if templates && !key.contains(&Part::Path) && faults.none_under(&at("key")) {
        let allowed = "nothing without path in the key";
        faults.add_text(&at("pathTemplates"), "a list", allowed);
    }
    hosts_of_clients(&document.r#match.hosts, &at("match.hosts"), faults);
    let period = document.period.0 * SECOND;
    let readable = ["limit", "period", "algorithm", "burst"]
        .iter()
        .all(|field| faults.none_under(&at(field)));
    let algorithm = if readable {
        algorithm(
            document.algorithm,
            document.limit,
            document.burst,
            period,
            path,
            faults,
        )
    } else {
        Algorithm::Window { limit: 1, period }
    };
    let table = table(
        algorithm,
        document.capacity,
        document.max_memory,
        path,
        faults,
    );
    Quota {
        name: document.name.0,
        key,
        matches: Match {
            hosts: document.r#match.hosts,
            prefixes: document
                .r#match
                .path_prefixes
                .into_iter()
                .map(|prefix| prefix.0)
                .collect(),
            methods: document
                .r#match
                .methods
                .into_iter()
                .map(|method| method.0)
                .collect(),
        },
        templates: document
            .path_templates
            .into_iter()
            .map(|template| template.0)
            .collect(),
        limit: document.limit,
        period,
        algorithm,
        table,
        enforcement: document.enforcement,
        on_anonymous: document.on_anonymous,
        on_overflow: document.on_overflow,
        on_contention: document.on_contention,
    }
}

fn algorithm(
    name: AlgorithmName,
    limit: u32,
    burst: Option<u32>,
    period: u64,
    path: &str,
    faults: &mut Faults,
) -> Algorithm {
    let at = |field: &str| format!("{path}.{field}");
    match name {
        AlgorithmName::Window => {
            if !(1..=MAX_WINDOW).contains(&limit) {
                let allowed =
                    format!("a whole number from 1 to {MAX_WINDOW} (more with algorithm: bucket)");
                faults.add_text(&at("limit"), &limit.to_string(), &allowed);
            }
            if let Some(burst) = burst {
                let allowed = "nothing without algorithm: bucket";
                faults.add_text(&at("burst"), &burst.to_string(), allowed);
            }
            Algorithm::Window { limit, period }
        }
        AlgorithmName::Bucket => {
            if limit == 0 {
                let allowed = format!("a whole number from 1 to {}", u32::MAX);
                faults.add_text(&at("limit"), &limit.to_string(), &allowed);
            }
            let in_range = |burst: &u32| (1..=limit.max(1)).contains(burst);
            if burst.filter(in_range).is_none() {
                let allowed = format!("a whole number from 1 to the limit, {limit}");
                let found = burst.map_or("missing".to_owned(), |burst| burst.to_string());
                faults.add_text(&at("burst"), &found, &allowed);
            }
            // Rounded up: rather a nanosecond too late than one request too many.
            let interval = period.div_ceil(u64::from(limit.max(1)));
            Algorithm::Bucket {
                interval,
                tolerance: u64::from(burst.unwrap_or(1).saturating_sub(1)) * interval,
                period,
            }
        }
    }
}

/// How a quota's table is cut into places. Their number does not hang on the limit, so that states
/// outlive a change of it.
fn table(
    algorithm: Algorithm,
    capacity: Option<u32>,
    Memory(max): Memory,
    path: &str,
    faults: &mut Faults,
) -> Table {
    let words = algorithm.words();
    let Some(capacity) = capacity else {
        let places = (max / PLACE).clamp(1, MOST_PLACES) as u32;
        let room = max / all_places(Table { places, room: 0 });
        return Table { places, room };
    };
    let cut = |keys: usize| {
        let together = (PLACE / size(1, words)).clamp(8, 32).min(keys.max(1));
        let places = keys.div_ceil(together).max(1);
        Table {
            places: places.try_into().unwrap_or(u32::MAX),
            room: size(keys.div_ceil(places), words),
        }
    };
    let fits = |keys: usize| {
        let table = cut(keys);
        all_places(table).saturating_mul(table.room) <= max
    };
    let keys = capacity as usize;
    if keys == 0 || !fits(keys) {
        let mut most = max / size(1, words);
        while most > 1 && !fits(most) {
            most -= most.div_ceil(100);
        }
        let allowed = format!("a whole number from 1 to {most} (maxMemory is {max} bytes)");
        let at = format!("{path}.capacity");
        faults.add_text(&at, &capacity.to_string(), &allowed);
    }
    cut(keys)
}

/// All places of a table: for keys, for address blocks, and one for the rest.
fn all_places(table: Table) -> usize {
    table.places as usize + table.blocks() as usize + 1
}
