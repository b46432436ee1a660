//! A short chaos run on real processes and servers: six faults, each once.

use std::{path::PathBuf, time::Duration};

use darkroom_chaos::{
    cluster::Setup,
    options::Options,
    plan::{Fault, Party, Server, Storage, StorageFault},
    run::run,
};

/// Folder of the binaries built beside this test.
fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    test.ancestors().nth(2).expect("a test is in deps/").to_owned()
}

#[test]
fn a_farm_under_faults_loses_nothing_doubles_nothing_and_makes_the_same_bytes() {
    let options = Options {
        seed: 1,
        jobs: 6,
        images: 60,
        faults: vec![
            Fault::Kill(Party::Workers),
            Fault::Kill(Party::Coordinators),
            Fault::FlushRedis,
            Fault::KillPostgres,
            Fault::Storage(StorageFault::Errors),
            Fault::Cut(Party::Workers, Server::Redis),
        ],
        most_faults: 6,
        pause: Duration::from_millis(500),
        real_images: 0,
        limit: Duration::from_secs(240),
        setup: Setup {
            binaries: binaries(),
            lease: Duration::from_secs(3),
            step_ms: 5.0,
            storage: Storage::S3,
            real: None,
        },
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(run(&options)).expect("the farm runs");
    println!("{}", report.table());
    assert!(report.verdict.deleted > 0, "a job was deleted");
    assert!(report.verdict.problems.is_empty(), "{:#?}", report.verdict.problems);
    assert_eq!(
        report.faults.values().map(|(count, _)| *count).collect::<Vec<_>>(),
        [1; 6],
        "each came once"
    );
}
