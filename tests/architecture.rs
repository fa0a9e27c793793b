//! Which module may import which: an import that the table does not allow is an error, and so is an entry that nothing
//! uses.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};

/// A module, then those that it may import. A module imports only from lines below its own. `cli` may import everything.
const ARROWS: &[(&str, &[&str])] = &[
    ("doctor", &["checkpoint", "dataset", "runtime", "escape", "input"]),
    (
        "study",
        &[
            "viz",
            "analysis",
            "eval",
            "journal",
            "checkpoint",
            "model",
            "runtime",
            "puzzle",
            "rng",
            "outcome",
            "store",
            "json",
        ],
    ),
    ("bench", &["train", "model", "dataset", "config", "runtime", "dtype"]),
    ("viz", &["analysis", "eval", "puzzle"]),
    (
        "analysis",
        &[
            "train",
            "eval",
            "journal",
            "checkpoint",
            "model",
            "ops",
            "dataset",
            "metrics",
            "dtype",
            "puzzle",
            "rng",
            "input",
            "store",
        ],
    ),
    (
        "train",
        &[
            "eval",
            "journal",
            "checkpoint",
            "optim",
            "model",
            "dataset",
            "config",
            "runtime",
            "metrics",
            "dtype",
            "raw_tensor",
            "batch",
            "puzzle",
            "rng",
            "input",
            "store",
            "escape",
        ],
    ),
    (
        "eval",
        &[
            "journal",
            "checkpoint",
            "model",
            "dataset",
            "runtime",
            "metrics",
            "difference",
            "dtype",
            "puzzle",
            "rng",
            "input",
            "store",
        ],
    ),
    ("dataset", &["journal", "hub", "dims", "batch", "puzzle", "rng", "outcome", "input", "store", "escape"]),
    ("journal", &["difference", "input", "store"]),
    (
        "checkpoint",
        &["hub", "model", "config", "runtime", "raw_tensor", "dims", "dtype", "input", "store", "escape", "memory"],
    ),
    ("hub", &["input", "store", "terminal"]),
    ("optim", &["ops"]),
    ("model", &["ops", "config", "runtime", "raw_tensor", "dims", "dtype", "batch"]),
    ("ops", &["config", "runtime", "dtype", "batch", "input", "store"]),
    ("config", &["dims", "dtype", "input"]),
    ("runtime", &["signals", "outcome", "escape", "input"]),
    ("raw_tensor", &["dtype"]),
    ("metrics", &[]),
    ("dims", &[]),
    ("dtype", &[]),
    ("batch", &["puzzle"]),
    ("difference", &[]),
    ("puzzle", &["rng"]),
    ("rng", &[]),
    ("signals", &["outcome", "terminal"]),
    ("outcome", &[]),
    ("store", &["input"]),
    ("json", &["escape"]),
    ("terminal", &[]),
    ("escape", &[]),
    ("memory", &[]),
    ("input", &[]),
];

/// `(file, module, imported module)` for every path that begins with `crate::` outside tests.
fn arrows(root: &Path) -> Result<BTreeSet<(String, String, String)>> {
    let mut files = Vec::new();
    code(root, root, &mut files)?;
    let mut found = BTreeSet::new();
    for (name, text) in files {
        let module = name.split('/').next().context("a module")?.trim_end_matches(".rs").to_owned();
        for imported in imported(&text).into_iter().filter(|imported| *imported != module) {
            found.insert((name.clone(), module.clone(), imported));
        }
    }
    Ok(found)
}

/// First segments of the paths behind `crate::`, those of groups (`crate::{a::b, c}`) too.
fn imported(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(first_name(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut begins = true;
                for (i, c) in group.char_indices() {
                    match c {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => begins = true,
                        c if begins && c.is_alphabetic() => {
                            found.push(first_name(&group[i..]));
                            begins = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found.retain(|name| name.chars().next().is_some_and(char::is_lowercase));
    found
}

fn first_name(path: &str) -> String {
    path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn modules_import_what_the_table_says() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let found = arrows(&root)?;
    ensure!(found.len() > 50, "only {} arrows were found", found.len());
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (file, from, to) in &found {
        match ARROWS.iter().find(|(module, _)| module == from) {
            Some((_, allowed)) if allowed.contains(&to.as_str()) => {
                used.insert((from.as_str(), to.as_str()));
            }
            // The command line may import everything, and the crate's root only declares.
            _ if from == "cli" || from == "main" || from == "lib" => {}
            _ => wrong.push(format!("{file}: {from} -> {to}")),
        }
    }
    ensure!(wrong.is_empty(), "arrows that the table does not have:\n{}", wrong.join("\n"));
    for (module, allowed) in ARROWS {
        for to in *allowed {
            ensure!(used.contains(&(module, to)), "the table has {module} -> {to}, which nothing uses");
        }
    }
    Ok(())
}

/// The code of every file, tests and comments aside, by its path below `root`.
fn code(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            code(&path, root, found)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path)?;
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            found.push((path.strip_prefix(root)?.to_str().context("a name in UTF-8")?.to_owned(), lines.join("\n")));
        }
    }
    Ok(())
}

/// A pipe is not waited for, and no file is read without a bound: `input` alone opens files to read. `store` opens folders
/// and leftovers to lock and to sync them, a rank its launcher's descriptor, and the doctor looks at what the system tells of itself.
#[test]
fn files_are_read_through_one_module() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    code(&root, &root, &mut files)?;
    let opens = |text: &str| {
        ["File::open(", "fs::read(", "read_to_string(", "Mmap"].iter().any(|call| {
            text.match_indices(call).any(|(at, _)| {
                let rest = &text[at + call.len()..];
                !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '.')
                    && !rest.starts_with("&mut ")
                    && !rest.starts_with("\"/")
            })
        })
    };
    let mut found: Vec<&str> = files.iter().filter(|(_, text)| opens(text)).map(|(name, _)| name.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, ["runtime/dist/store.rs", "store/folder.rs", "store/leftovers.rs", "store/mod.rs"]);
    Ok(())
}

#[test]
fn the_table_has_no_circle() {
    let place = |name: &str| ARROWS.iter().position(|(module, _)| *module == name);
    for (at, (module, allowed)) in ARROWS.iter().enumerate() {
        for to in *allowed {
            assert!(place(to).is_some_and(|below| below > at), "{module} -> {to} points up, or {to} has no line");
        }
    }
}

#[test]
fn paths_and_groups_are_read() {
    let code =
        "use crate::{\n    a::{x, y},\n    b,\n    c::{d::{e}, f},\n};\nuse crate::g;\nfn f() { crate::h::i(); }";
    assert_eq!(imported(code), ["a", "b", "c", "g", "h"]);
}
