//! Counting passed and failed checks, and saying so in one form: `N passed, N failed`.

use std::process::ExitCode;
use std::time::Duration;

/// The result of one suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
}

/// The results of several suites.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    suites: Vec<Suite>,
    second: Vec<String>,
}

impl Tally {
    /// Adds a suite and prints its line.
    pub fn add(&mut self, suite: Suite, took: Duration) {
        let seconds = took.as_secs_f64();
        println!("{:<40} {} passed, {} failed ({seconds:.1} s)", suite.name, suite.passed, suite.failed);
        self.suites.push(suite);
    }

    /// Adds one check that is no test.
    pub fn check(&mut self, name: &str, passed: bool, took: Duration) {
        let suite =
            Suite { name: name.to_owned(), passed: usize::from(passed), failed: usize::from(!passed) };
        self.add(suite, took);
    }

    /// Tests that passed only when they were run once more, alone.
    pub fn second_try<'a>(&mut self, tests: impl Iterator<Item = &'a String>) {
        self.second.extend(tests.cloned());
    }

    /// Prints the sum; the exit code says whether all passed.
    pub fn finish(self) -> ExitCode {
        let passed: usize = self.suites.iter().map(|suite| suite.passed).sum();
        let failed: usize = self.suites.iter().map(|suite| suite.failed).sum();
        let bad: Vec<_> =
            self.suites.iter().filter(|suite| suite.failed > 0).map(|suite| &suite.name).collect();
        if !bad.is_empty() {
            println!("failed: {bad:?}");
        }
        if !self.second.is_empty() {
            println!("passed only at the second try, alone: {:?}", self.second);
        }
        println!("{passed} passed, {failed} failed");
        if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Reads the lines that libtest prints for each test, grouped by the test's first module. Tests that said that they were
/// not run (see [`not_run`]) do not count.
pub fn by_module(prefix: &str, output: &str) -> Vec<Suite> {
    let mut suites: Vec<Suite> = Vec::new();
    let skipped = not_run(output);
    for (path, passed) in results(output) {
        if skipped.iter().any(|(name, _)| *name == path) {
            continue;
        }
        let module = path.split_once("::").map_or("", |(module, _)| module);
        let name = format!("{prefix}{module}");
        let index = suites.iter().position(|suite| suite.name == name).unwrap_or_else(|| {
            suites.push(Suite { name, ..Suite::default() });
            suites.len() - 1
        });
        let suite = &mut suites[index];
        if passed {
            suite.passed += 1;
        } else {
            suite.failed += 1;
        }
    }
    suites
}

/// Tests that returned at once and why, as they said themselves; libtest shows that with `--show-output` below a head
/// `---- path stdout ----`.
pub fn not_run(output: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut current = None;
    for line in output.lines() {
        if let Some(head) = line.strip_prefix("---- ") {
            current = head.strip_suffix(" stdout ----");
        } else if line.starts_with("skipped: ") || line.starts_with("not run for upstream: ") {
            found.extend(current.map(|path| (path, line)));
            current = None;
        }
    }
    found
}

/// Reads the lines that libtest prints for each test as one suite.
pub fn as_one(name: &str, output: &str) -> Suite {
    let mut suite = Suite { name: name.to_owned(), ..Suite::default() };
    for (_, passed) in results(output) {
        if passed {
            suite.passed += 1;
        } else {
            suite.failed += 1;
        }
    }
    suite
}

/// The tests that failed.
pub fn failed(output: &str) -> Vec<&str> {
    results(output).into_iter().filter_map(|(path, passed)| (!passed).then_some(path)).collect()
}

/// Each test that has a result, in the order of the first ones; of a test that was run twice it is the later.
fn results(output: &str) -> Vec<(&str, bool)> {
    let mut results: Vec<(&str, bool)> = Vec::new();
    for (path, passed) in output.lines().filter_map(test_line) {
        match results.iter_mut().find(|(earlier, _)| *earlier == path) {
            Some((_, result)) => *result = passed,
            None => results.push((path, passed)),
        }
    }
    results
}

/// `test a::b ... ok` or `... FAILED`; ignored tests do not count.
fn test_line(line: &str) -> Option<(&str, bool)> {
    let (path, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    match result.trim() {
        "ok" => Some((path, true)),
        "FAILED" => Some((path, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 4 tests\ntest run::a ... ok\ntest exit::b ... FAILED\ntest run::c ... ok\n\
                          test exit::d ... ignored\n\ntest result: FAILED. 2 passed; 1 failed\n";

    #[test]
    fn tests_are_grouped_by_their_first_module() {
        let suites = by_module("ours: ", OUTPUT);
        let lines: Vec<_> = suites.iter().map(|s| (s.name.as_str(), s.passed, s.failed)).collect();
        assert_eq!(lines, [("ours: run", 2, 0), ("ours: exit", 0, 1)]);
    }

    #[test]
    fn a_test_that_says_that_it_was_not_run_does_not_count() {
        let output = "test run::a ... ok\ntest run::b ... ok\n\nsuccesses:\n\n---- run::b stdout ----\n\
                      skipped: no strace\n\n\nsuccesses:\n    run::a\n    run::b\n";
        assert_eq!(not_run(output), [("run::b", "skipped: no strace")]);
        assert_eq!(by_module("", output)[0].passed, 1);
    }

    #[test]
    fn the_later_result_of_a_test_counts() {
        assert_eq!(failed(OUTPUT), ["exit::b"]);
        let again = format!("{OUTPUT}running 1 test\ntest exit::b ... ok\n");
        assert!(failed(&again).is_empty());
        assert_eq!(as_one("all", &again), Suite { name: "all".into(), passed: 3, failed: 0 });
        assert_eq!(failed(&format!("{again}test exit::b ... FAILED\n")), ["exit::b"]);
    }

    #[test]
    fn ignored_tests_and_the_summary_do_not_count() {
        let suite = as_one("all", OUTPUT);
        assert_eq!((suite.passed, suite.failed), (2, 1));
    }
}
