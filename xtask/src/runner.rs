//! Runs steps in order, times them and closes with a table.
//!
//! The table comes last and holds what each test runner said in closing, so that the end of a log
//! tells the whole story.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// One check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// The name for `--only` and in the table.
    pub(crate) name: &'static str,
    /// One line about what it checks.
    pub(crate) about: &'static str,
    /// Does it; returns a remark for the table, which may be empty.
    pub(crate) run: fn(&Workspace) -> Result<String>,
}

#[derive(Debug)]
enum Outcome {
    Passed(String),
    Failed(String),
    NotRun,
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// Picks the steps named in `only`, in the order of `all`; all of them if none is named.
///
/// # Errors
/// If a name is not a step's.
pub(crate) fn choose(all: &[Step], only: &[String]) -> Result<Vec<Step>> {
    if let Some(unknown) = only.iter().find(|name| !all.iter().any(|step| step.name == **name)) {
        let names: Vec<_> = all.iter().map(|step| step.name).collect();
        bail!("there is no step {unknown}; the steps are {}", names.join(", "));
    }
    let wanted = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    Ok(all.iter().filter(wanted).copied().collect())
}

/// Runs `steps`; true if all passed.
pub(crate) fn run(steps: &[Step], workspace: &Workspace, keep_going: bool) -> bool {
    let mut rows: Vec<Row> = Vec::new();
    let mut stopped = false;
    for (index, step) in steps.iter().enumerate() {
        if stopped {
            rows.push(Row { name: step.name, outcome: Outcome::NotRun, took: Duration::ZERO });
            continue;
        }
        println!("\n=== {}/{} {}: {}", index + 1, steps.len(), step.name, step.about);
        let start = Instant::now();
        let result = (step.run)(workspace);
        let took = start.elapsed();
        let outcome = match result {
            Ok(remark) => {
                println!("--- {} passed in {}", step.name, seconds(took));
                Outcome::Passed(remark)
            }
            Err(error) => {
                println!("--- {} FAILED in {}: {error:#}", step.name, seconds(took));
                stopped = !keep_going;
                Outcome::Failed(format!("{error:#}"))
            }
        };
        rows.push(Row { name: step.name, outcome, took });
    }
    print!("\n{}", table(&rows));
    // Lines of other programs on standard error must not overtake the table.
    let _ = std::io::stdout().flush();
    rows.iter().all(|row| matches!(row.outcome, Outcome::Passed(_)))
}

fn table(rows: &[Row]) -> String {
    let total: Duration = rows.iter().map(|row| row.took).sum();
    let failed: Vec<_> = rows
        .iter()
        .filter(|row| matches!(row.outcome, Outcome::Failed(_)))
        .map(|row| row.name)
        .collect();
    let mut text = if failed.is_empty() {
        format!("all {} steps passed in {}\n\n", rows.len(), seconds(total))
    } else {
        format!("FAILED after {}: {}\n\n", seconds(total), failed.join(", "))
    };
    for row in rows {
        let (word, remark) = match &row.outcome {
            Outcome::Passed(remark) => ("passed", remark.as_str()),
            Outcome::Failed(error) => ("FAILED", error.lines().next().unwrap_or_default()),
            Outcome::NotRun => ("not run", ""),
        };
        let line = format!("{:10} {word:8} {:>9}  {remark}", row.name, seconds(row.took));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: &[Step] = &[
        Step { name: "a", about: "passes", run: |_| Ok("3 passed".into()) },
        Step { name: "b", about: "fails", run: |_| bail!("no luck") },
        Step { name: "c", about: "passes", run: |_| Ok(String::new()) },
    ];

    fn names(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|step| step.name).collect()
    }

    #[test]
    fn only_keeps_the_order_of_the_list_and_refuses_what_is_not_there() {
        assert_eq!(names(&choose(STEPS, &[]).unwrap()), ["a", "b", "c"]);
        assert_eq!(names(&choose(STEPS, &["c".into(), "a".into()]).unwrap()), ["a", "c"]);
        let error = choose(STEPS, &["d".into()]).unwrap_err().to_string();
        assert_eq!(error, "there is no step d; the steps are a, b, c");
    }

    #[test]
    fn the_result_is_false_as_soon_as_one_step_fails() {
        let workspace = Workspace::default();
        assert!(run(&STEPS[..1], &workspace, false));
        assert!(!run(STEPS, &workspace, false));
        assert!(!run(STEPS, &workspace, true));
    }

    #[test]
    fn the_table_ends_with_the_last_steps_remark() {
        let row = |name, outcome| Row { name, outcome, took: Duration::from_millis(1_250) };
        let failed = [
            row("a", Outcome::Passed(String::new())),
            row("b", Outcome::Failed("no luck\nmore".into())),
            row("c", Outcome::NotRun),
        ];
        let expect = "FAILED after 3.8 s: b\n\n\
                      a          passed       1.2 s\n\
                      b          FAILED       1.2 s  no luck\n\
                      c          not run      1.2 s\n";
        assert_eq!(table(&failed), expect);
        let passed = table(&[row("lab", Outcome::Passed("9 tests run: 9 passed".into()))]);
        assert!(passed.starts_with("all 1 steps passed"), "{passed}");
        assert!(passed.ends_with("9 tests run: 9 passed\n"), "{passed}");
    }
}
