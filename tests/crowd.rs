//! Many users at once, each of whom is to stay in one version.

use harness::http::{Client, Request, Response};
use promises::{cookies, version_of};

const WORKERS: usize = 8;

/// Sends `request` for so many named users and as many visitors with a cookie jar, `rounds` times
/// each and all at once. Named users must see the version of their slot, visitors the version that
/// came with their cookies, which they get once. The versions of the visitors.
pub(crate) fn stays_in_one_version(
    address: &str,
    users: usize,
    rounds: usize,
    request: &Request,
    version: fn(&Response) -> String,
) -> Vec<String> {
    let work = |worker| {
        let mut client = Client::connect(address).expect("a connection");
        let mut send = |request: Request| client.send(&request).expect("a response");
        let visitors: Vec<(usize, String, String)> = (worker..users)
            .step_by(WORKERS)
            .map(|user| {
                let first = send(request.clone());
                (user, cookies(&first), version(&first))
            })
            .collect();
        for _ in 0..rounds {
            for (user, jar, given) in &visitors {
                let name = format!("user-{user}");
                let response = send(request.clone().header("X-User", &name));
                assert_eq!(version(&response), version_of(&name), "{name}");

                let response = send(request.clone().header("Cookie", jar));
                assert_eq!(&version(&response), given, "{jar}");
                assert!(response.headers.get("set-cookie").is_none(), "{jar}");
            }
        }
        visitors
    };
    let visitors = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| scope.spawn(move || work(worker)))
            .collect();
        let visitors = workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("no failure"));
        visitors.map(|(_, _, version)| version).collect::<Vec<_>>()
    });
    assert_eq!(visitors.len(), users);
    visitors
}
