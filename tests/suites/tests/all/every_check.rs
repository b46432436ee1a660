//! A check that is written and not listed in its suite's macro would never run.

use std::{collections::BTreeSet, fs, path::Path};

/// The names of the checks in the files of a suite, which are public functions of this argument.
fn written(suite: &str, argument: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(suite);
    let mut names = BTreeSet::new();
    for file in fs::read_dir(folder).expect("the suite's files") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("its text");
        let functions = text.lines().filter_map(|line| line.strip_prefix("pub async fn "));
        names.extend(functions.filter_map(|function| {
            let (name, arguments) = function.split_once('(')?;
            arguments.starts_with(argument).then(|| name.to_owned())
        }));
    }
    names
}

/// The names in the list of a suite's macro, in which each has a line of its own.
fn listed(suite: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(format!("{suite}.rs"));
    let text = fs::read_to_string(file).expect("the suite");
    let macro_start = text.find("macro_rules!").expect("its macro");
    let is_name =
        |line: &&str| !line.is_empty() && line.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    text[macro_start..].lines().map(str::trim).filter(is_name).map(str::to_owned).collect()
}

#[test]
fn every_check_of_a_suite_is_run_once() {
    for (suite, argument, at_least) in
        [("queue", "h: Harness)", 25), ("store", "bench: &Bench)", 80)]
    {
        let (written, listed) = (written(suite, argument), listed(suite));
        assert!(written.len() >= at_least, "{suite}: only {} checks are seen", written.len());
        assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), written, "{suite}");
        assert_eq!(listed.len(), written.len(), "{suite}: a check is listed twice");
    }
}
