//! The page about the guards names each guard and the test that takes it out, and each is taken
//! out.

use std::{fs, path::Path};

use darkroom_core::guard::Guard;

#[test]
fn every_guard_has_a_line_on_the_page_and_a_test_that_takes_it_out() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(home.join("../../docs/guards.md")).expect("the page");
    let tests: String = fs::read_dir(home.join("tests/all"))
        .expect("the tests")
        .map(|file| fs::read_to_string(file.expect("a file").path()).expect("its text"))
        .collect();
    for guard in Guard::ALL {
        let name = format!("{guard:?}");
        assert!(page.contains(&format!("| `{name}` |")), "docs/guards.md has no line for {name}");
        let by_name = tests.contains(&format!("Guard::{name},"));
        let in_table =
            tests.lines().any(|line| line.trim_start().starts_with(&format!("{name}, \"")));
        assert!(by_name || in_table, "no test takes {name} out");
    }
    let lines = page.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(lines, Guard::ALL.len(), "docs/guards.md lists something that is not a guard");
    for name in page.lines().filter_map(|line| line.strip_prefix("| `")?.rsplit_once("| `")) {
        let test = name.1.trim_end_matches(['|', ' ', '`']);
        assert!(
            tests.contains(&format!("fn {test}(")) || tests.contains(&format!("    {test}:\n")),
            "there is no test {test}"
        );
    }
}
