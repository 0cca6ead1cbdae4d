//! `cargo xtask tidy`: what the compiler does not check about the shape of the sources.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::{command::root, conformance};

/// Longest file that may still have one purpose; aim at 400.
const MAX_LINES: usize = 500;
/// Tests may be longer: tables.
const MAX_TEST_LINES: usize = 600;

/// The only places that may use `unsafe`; anything else goes through them.
const UNSAFE: &[&str] = &[
    "aead/src/",
    "aead/tests/differential/guarded.rs",
    "bench/src/load/engine/mapped.rs",
    "gateway/src/control/netlink/test_netns.rs",
    "gateway/src/control/readable.rs",
    "gateway/src/io/af_xdp/",
    "gateway/src/io/udp/options.rs",
    "gateway/tests/io_linux/namespace.rs",
    "gateway-ebpf/src/load_maps.rs",
    "gateway-ebpf/src/packet.rs",
    "gateway-ebpf/src/slices.rs",
    "gateway-ebpf/src/tables.rs",
];

/// File names that say nothing.
const VAGUE: &[&str] = &["util", "utils", "helper", "helpers", "manager", "common", "misc"];

/// Checks every Rust source and names everything that is wrong.
pub fn run() -> Result<()> {
    let mut complaints = Vec::new();
    let mut functions = BTreeSet::new();
    visit(root(), &mut |path, text| {
        complaints.extend(check(path, text));
        conformance::functions(text, &mut functions);
    })?;
    complaints.extend(conformance::unknown_tests(&functions)?);
    if complaints.is_empty() {
        return Ok(());
    }
    for complaint in &complaints {
        eprintln!("    {complaint}");
    }
    bail!("{} complaints about the sources", complaints.len())
}

/// Calls `f` with the path below the root and the text of each Rust source.
fn visit(dir: &Path, f: &mut impl FnMut(&str, &str)) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                visit(&path, f)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            f(&path.strip_prefix(root()).unwrap_or(&path).to_string_lossy(), &text);
        }
    }
    Ok(())
}

/// What is wrong with one file.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |line: usize, what: &str| complaints.push(format!("{path}:{line}: {what}"));

    if !text.starts_with("//! ") {
        complain(1, "the first line must say what the file is for (`//! ...`)");
    }
    let is_test = path.split('/').any(|part| part == "tests");
    let limit = if is_test { MAX_TEST_LINES } else { MAX_LINES };
    if text.lines().count() > limit {
        complain(limit, &format!("longer than {limit} lines: split it by purpose"));
    }
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    if VAGUE.contains(&&*stem) {
        complain(1, "the file name says nothing: name it after what it does");
    }
    if Path::new(path).with_extension("").join("mod.rs").exists()
        || root().join(path).with_extension("").is_dir()
    {
        complain(1, "a module with children lives in its folder's mod.rs");
    }
    for (index, line) in text.lines().enumerate() {
        for (wrong, what) in complaints_about_line(path, line) {
            if wrong {
                complain(index + 1, what);
            }
        }
    }
    complaints
}

fn complaints_about_line(path: &str, line: &str) -> [(bool, &'static str); 4] {
    let code = line.split("//").next().unwrap_or_default();
    // Split, so that this file passes its own check.
    let ignore = concat!("#[ign", "ore");
    let keyword = concat!("uns", "afe ");
    let is_unsafe =
        ["{", "fn", "impl", "extern"].iter().any(|next| code.contains(&format!("{keyword}{next}")));
    [
        (code.contains(ignore), "report a skip in WGX_TEST_LOG instead (xtask/src/test)"),
        (
            is_unsafe && !UNSAFE.iter().any(|place| path.starts_with(place)),
            "not a place for unsafe code (xtask/src/tidy.rs)",
        ),
        (code.contains(concat!("fn ge", "t_")), "name a getter after what it returns"),
        (line.ends_with([' ', '\t']), "white space at the end of the line"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_passes() {
        assert_eq!(check("gateway/src/xdp/mod.rs", "//! Fine.\nfn main() {}\n"), [""; 0]);
    }

    #[test]
    fn each_fault_is_named_with_its_line() {
        let text = format!(
            "fn main() {{\n    {}{{ x() }}\n}} \n{}]\n{}it() {{}}\n",
            concat!("uns", "afe "),
            concat!("#[ign", "ore"),
            concat!("fn ge", "t_")
        );
        let complaints = check("gateway/src/utils.rs", &text);
        let lines: Vec<&str> = complaints.iter().map(|line| line.split(": ").next().unwrap()).collect();
        let expected = [1, 1, 2, 3, 4, 5].map(|line| format!("gateway/src/utils.rs:{line}"));
        assert_eq!(lines, expected, "{complaints:#?}");
    }

    #[test]
    fn length_is_limited() {
        let text = format!("//! Long.\n{}", "\n".repeat(MAX_LINES));
        assert_eq!(check("a/src/b.rs", &text).len(), 1);
        assert_eq!(check("a/tests/b.rs", &text).len(), 0);
    }
}
