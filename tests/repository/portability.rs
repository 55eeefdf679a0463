//! Tests that what a user of the cluster runs works with the tools of macOS: bash 3.2, and not those of GNU.

use crate::compose_model::text;

/// What newer versions of bash or the tools of GNU have, and what to use instead.
const MISSING: &[(&str, &str)] = &[
    ("@(", "case"),
    ("!(", "case"),
    ("xargs -r", "a condition"),
    ("readarray", "read"),
    ("mapfile", "read"),
    ("declare -A", "case"),
    ("local -n", "a global variable"),
    (",,}", "tr"),
    ("^^}", "tr"),
    ("@Q}", "printf %q"),
    ("|&", "2>&1 |"),
    ("&>>", ">> 2>&1"),
    ("coproc", "a subshell"),
    ("sed -i", "another file"),
    ("sed -r", "sed -E"),
    ("grep -P", "sed"),
    ("base64 -w", "tr -d"),
    ("date -d", "awk"),
    ("date --", "awk"),
    ("readlink -f", "cd and pwd"),
    ("realpath", "cd and pwd"),
    ("sha256sum", "shasum"),
    ("mktemp -", "mktemp"),
    ("find -", "find <folder>"),
    ("-printf", "-print"),
    ("stat -c", "ls"),
    ("sort -V", "awk"),
    ("head -n -", "awk"),
    ("setsid", "nothing"),
    ("flock", "mkdir"),
];

/// The targets of the Makefile for users of the cluster and of `make dev`.
const TARGETS: &[&str] = &["help", "dev", "up", "down", "logs", "ps", "smoke", "audit", "dlq", "clean"];

fn recipe(target: &str) -> String {
    let makefile = text("Makefile");
    let (_, rest) = makefile.split_once(&format!("\n{target}: ## ")).unwrap();
    let (_, recipe) = rest.split_once('\n').unwrap();
    recipe.split("\n\n").next().unwrap().to_owned()
}

#[test]
fn the_scripts_and_targets_of_users_need_no_newer_bash_and_no_tools_of_gnu() {
    let scripts = ["compose/up", "compose/smoke", "compose/settings.sh"].map(|file| (file, text(file)));
    let targets = TARGETS.iter().map(|target| (*target, recipe(target)));
    for (name, script) in scripts.into_iter().chain(targets) {
        for line in script.lines().filter(|line| !line.trim_start().starts_with('#')) {
            for (missing, instead) in MISSING {
                assert!(!line.contains(missing), "{name} uses {missing} instead of {instead}: {line}");
            }
        }
    }
}

/// sed of macOS prints a `t` for this.
#[test]
fn no_target_of_users_writes_a_tab_with_sed() {
    for target in TARGETS {
        let recipe = recipe(target);
        assert!(!(recipe.contains("sed") && recipe.contains("\\t")), "{target}");
    }
}
