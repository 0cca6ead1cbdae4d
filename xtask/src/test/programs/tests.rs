//! What the runner makes of programs that end well, fail, break off, hang, and wait for each other.

use std::env;

use super::*;

const LONG: Duration = Duration::from_mins(1);

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("xtask-programs-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn shell(name: &str, script: &str) -> Program {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Program { name: name.into(), command }
}

#[test]
fn each_outcome_has_its_own_output_and_count() {
    let folder = Folder::new("outcomes");
    let good = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured'";
    let bad = "echo 'test a ... note: a: 5 ms' >&2; printf '\nfailures:\n\n---- a stdout ----\nfailures:\nno\n\n\
               failures:\n    a\n    m::b\n\ntest result: FAILED. 1 passed; 2 failed; 0 ignored\n'; exit 101";
    let programs = vec![shell("good", good), shell("bad", bad), shell("broken", "echo so far; exit 1")];
    let mut outcomes = run_several(programs, 2, &folder.0, LONG);
    outcomes.sort_by(|a, b| a.name.cmp(&b.name));
    let [bad, broken, good] = &outcomes[..] else { panic!("{} outcomes", outcomes.len()) };

    assert_eq!(good.tally, Tally { passed: 3, ..Tally::default() });
    assert_eq!(good.complaints(), [""; 0]);
    assert_eq!(bad.tally, Tally { passed: 1, failed: 2, cargo_failed: true, ..Tally::default() });
    assert_eq!(bad.complaints(), ["bad: a", "bad: m::b"]);
    assert!(bad.output.starts_with("test a ... note: a: 5 ms\n"), "{}", bad.output);
    assert_eq!(broken.output, "so far\n");
    assert_eq!(broken.complaints(), ["broken: broke off (exit status: 1)"]);
}

#[test]
fn programs_run_at_the_same_time_but_no_more_than_wanted() {
    let folder = Folder::new("several");
    let place = folder.0.display();
    let ok = "echo 'test result: ok. 1 passed; 0 failed'";
    // Each waits for the other.
    let meets = |mine: &str, other: &str| {
        format!("touch {place}/{mine}; until [ -e {place}/{other} ]; do sleep 0.01; done; {ok}")
    };
    let programs = vec![shell("one", &meets("1", "2")), shell("two", &meets("2", "1"))];
    let outcomes = run_several(programs, 2, &folder.0, LONG);
    assert!(outcomes.iter().all(|outcome| outcome.complaints().is_empty()));
    // None may see another.
    let alone =
        |name: &str| shell(name, &format!("mkdir {place}/x && sleep 0.05 && rmdir {place}/x && {ok}"));
    let outcomes = run_several(["a", "b", "c"].map(alone).into(), 1, &folder.0, LONG);
    assert_eq!(outcomes.iter().map(|outcome| outcome.tally.passed).sum::<usize>(), 3);
}

#[test]
fn a_program_that_hangs_is_ended_and_named_and_the_next_one_runs() {
    let folder = Folder::new("hangs");
    // `exec`: it is the program itself that gets the signal.
    let programs = vec![shell("hangs", "echo begun; exec sleep 100"), shell("next", "echo next")];
    let outcomes = run_several(programs, 1, &folder.0, Duration::from_millis(300));
    assert_eq!(outcomes[0].complaints(), ["hangs: not done after 0 s"]);
    assert_eq!(outcomes[0].output, "begun\n");
    assert!(outcomes[0].tally.cargo_failed && outcomes[0].took < FAREWELL);
    assert_eq!(outcomes[1].output, "next\n");
}

#[test]
fn tests_that_failed_beside_others_are_decided_alone() {
    let folder = Folder::new("alone");
    let place = folder.0.display();
    // As libtest does: all tests at first, later those named after `--exact`. `late` passes then, `bad` never.
    let script = format!(
        r#"[ "$1" = --exact ] || {{ printf '\nfailures:\n    bad\n    late\n\ntest result: FAILED. 3 passed; 2 failed\n'; exit 101; }}
           echo "$@" > {place}/named
           printf '\nfailures:\n    bad\n\ntest result: FAILED. 1 passed; 1 failed\n'; exit 101"#
    );
    let program = || {
        let mut program = shell("program", &script);
        program.command.arg("sh");
        program
    };
    let mut outcomes = run_several(vec![program()], 1, &folder.0, LONG);
    let outcome = &mut outcomes[0];
    outcome.decide(&program().command, true, &folder.0, LONG, |_| 0.0);
    assert_eq!(fs::read_to_string(folder.0.join("named")).unwrap(), "--exact bad late\n");
    assert_eq!(outcome.unsteady, [("late".to_owned(), "beside others".to_owned())]);
    assert_eq!(outcome.complaints(), ["program: bad"]);
    assert_eq!(outcome.tally, Tally { passed: 4, failed: 1, cargo_failed: true, ..Tally::default() });
}

#[test]
fn a_test_that_failed_on_stolen_processors_runs_again_and_else_not() {
    let folder = Folder::new("stolen");
    // Fails in the first two runs.
    let script = format!(
        r"echo >> {0}/runs; [ $(wc -l < {0}/runs) -gt 2 ] && {{ printf '\ntest result: ok. 1 passed; 0 failed\n'; exit 0; }}
           printf '\nfailures:\n    a\n\ntest result: FAILED. 0 passed; 1 failed\n'; exit 101",
        folder.0.display()
    );
    let program = || shell("program", &script);
    let runs = || fs::read_to_string(folder.0.join("runs")).unwrap().lines().count();
    let mut outcomes = run_several(vec![program()], 1, &folder.0, LONG);
    outcomes[0].decide(&program().command, false, &folder.0, LONG, |_| 0.9 * STOLEN_MAX);
    assert_eq!((runs(), outcomes[0].complaints().len()), (1, 1));
    outcomes[0].decide(&program().command, false, &folder.0, LONG, |_| 23.0);
    assert_eq!((runs(), outcomes[0].complaints().len()), (3, 0));
    let (test, beside) = &outcomes[0].unsteady[0];
    assert_eq!((test.as_str(), beside.as_str()), ("a", "while 23 % of the processors' time was stolen"));
}

#[test]
fn a_program_that_breaks_off_when_alone_is_a_failure() {
    let folder = Folder::new("breaks");
    let script = "[ $# = 0 ] || exit 3; printf '\nfailures:\n    a\n\ntest result: FAILED. 0 passed; 1 failed\n'; exit 101";
    let program = || {
        let mut program = shell("program", script);
        program.command.arg("sh");
        program
    };
    let mut outcomes = run_several(vec![program()], 1, &folder.0, LONG);
    outcomes[0].decide(&program().command, true, &folder.0, LONG, |_| 0.0);
    assert_eq!(outcomes[0].complaints(), ["program: broke off (exit status: 3)"]);
    assert!(outcomes[0].tally.cargo_failed);
}

#[test]
fn a_program_that_does_not_start_is_named() {
    let folder = Folder::new("start");
    let program = Program { name: "none".into(), command: Command::new("/wgx/no/such/program") };
    let outcomes = run_several(vec![program], 2, &folder.0, LONG);
    let complaint = outcomes[0].complaints().join(", ");
    assert!(complaint.starts_with("none: `/wgx/no/such/program` did not start"), "{complaint}");
}

#[test]
fn only_test_programs_are_taken_from_what_cargo_says() {
    let line = |test: bool, path: &str| {
        format!(
            r#"{{"reason":"compiler-artifact","target":{{"name":"x"}},"profile":{{"test":{test}}},"executable":{path}}}"#
        )
    };
    assert_eq!(executable(&line(true, r#""/t/x-1""#)), Some(("x".into(), "/t/x-1".into())));
    assert_eq!(executable(&line(true, "null")), None);
    assert_eq!(executable(&line(false, r#""/t/x-1""#)), None);
    assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
    assert_eq!(executable("warning: odd"), None);
}
