//! Built objects against files: `tests/golden/<case>/input.yaml` and `expected/`. `UPDATE=1` writes what is built.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use persesstack_operator::cli::OptionalApi;
use persesstack_operator::controllers::persesstack::observed::Capabilities;
use persesstack_operator::settings::Settings;
use persesstack_operator::sizing::price::PriceTable;
use persesstack_operator::{explain, render};

use crate::files::{self, updating};

/// The optional APIs of the case's cluster: the words of `--assume-api` in its file `apis`, if it has one.
pub(crate) fn capabilities(case: &Path) -> Capabilities {
    let words = fs::read_to_string(case.join("apis")).unwrap_or_default();
    let api = |word| OptionalApi::from_str(word, true).unwrap_or_else(|e| panic!("{}/apis: {e}", case.display()));
    OptionalApi::capabilities(&words.split_whitespace().map(api).collect::<Vec<_>>())
}

/// Files of one case by name: one per object, and the explanation of the numbers.
fn build(case: &Path) -> BTreeMap<String, String> {
    let input = fs::read_to_string(case.join("input.yaml")).expect("input.yaml");
    let rendered = render::render(&input, &Settings::default(), capabilities(case))
        .unwrap_or_else(|e| panic!("{}: {e}", case.display()));
    let mut built = BTreeMap::new();
    for stack in &rendered {
        let name = stack.validated.names.stack();
        let numbers = explain::of(stack, &PriceTable::default()).text();
        built.insert(format!("{name}.explain.txt"), numbers);
        for object in render::objects(stack).expect("objects") {
            let kind = object["kind"].as_str().expect("kind").to_lowercase();
            let file = format!("{kind}.{}.yaml", without_hash(object["metadata"]["name"].as_str().expect("name")));
            let text = serde_saphyr::to_string(&object).expect("YAML");
            assert!(built.insert(file.clone(), text).is_none(), "two objects are called {file}");
        }
    }
    built
}

/// The file keeps its name when only the hash in the object's name changes.
fn without_hash(name: &str) -> String {
    match name.rsplit_once('-') {
        Some((rest, hash)) if hash.len() == 10 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => format!("{rest}-hash"),
        _ => name.to_owned(),
    }
}

/// Folders of all cases.
pub(crate) fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<_> = fs::read_dir(files::crate_dir().join("tests/golden"))
        .expect("tests/golden")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(cases.len() >= 4, "golden cases are missing: {cases:?}");
    cases
}

#[test]
fn objects_are_built_as_recorded() {
    let mut differences = Vec::new();
    for case in cases() {
        let expected = case.join("expected");
        let built = build(&case);
        if updating() {
            let _ = fs::remove_dir_all(&expected);
            fs::create_dir_all(&expected).expect("expected/");
            for (file, text) in &built {
                fs::write(expected.join(file), text).expect("write");
            }
            continue;
        }
        let recorded: BTreeMap<_, _> = fs::read_dir(&expected)
            .unwrap_or_else(|_| panic!("{} is missing: run with UPDATE=1", expected.display()))
            .map(|entry| entry.expect("entry").path())
            .map(|path| {
                (
                    path.file_name().expect("name").to_string_lossy().into_owned(),
                    fs::read_to_string(&path).expect("text"),
                )
            })
            .collect();
        for (file, text) in &built {
            match recorded.get(file) {
                None => differences.push(format!("{}/{file} is new", case.display())),
                Some(old) if old != text => differences.push(files::difference(&case.join(file), old, text)),
                Some(_) => {}
            }
        }
        differences.extend(
            recorded
                .keys()
                .filter(|f| !built.contains_key(*f))
                .map(|f| format!("{}/{f} is not built any more", case.display())),
        );
    }
    assert!(differences.is_empty(), "{}\nrun with UPDATE=1 when this is meant", differences.join("\n"));
}

#[test]
fn building_twice_gives_the_same() {
    for case in cases() {
        assert_eq!(build(&case), build(&case), "{}", case.display());
    }
}

#[test]
fn every_pod_fits_the_restricted_profile() {
    for case in cases() {
        let input = fs::read_to_string(case.join("input.yaml")).expect("input");
        for stack in render::render(&input, &Settings::default(), capabilities(&case)).expect("render") {
            for object in render::objects(&stack).expect("objects") {
                let pod = &object["spec"]["template"]["spec"];
                if pod.is_null() {
                    continue;
                }
                let what = format!("{} {} of {}", object["kind"], object["metadata"]["name"], case.display());
                assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{what}");
                assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{what}");
                assert_eq!(pod["automountServiceAccountToken"], false, "{what}");
                for container in pod["containers"].as_array().expect("containers") {
                    let security = &container["securityContext"];
                    assert_eq!(security["allowPrivilegeEscalation"], false, "{what}");
                    assert_eq!(security["readOnlyRootFilesystem"], true, "{what}");
                    assert_eq!(security["capabilities"]["drop"][0], "ALL", "{what}");
                    for part in ["requests", "limits"] {
                        for resource in ["cpu", "memory"] {
                            assert!(container["resources"][part][resource].is_string(), "{what}: {part}.{resource}");
                        }
                    }
                    let volumes: Vec<_> = pod["volumes"].as_array().into_iter().flatten().map(|v| &v["name"]).collect();
                    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                        assert!(volumes.contains(&&mount["name"]), "{what}: mount {} has no volume", mount["name"]);
                    }
                }
            }
        }
    }
}

#[test]
fn passwords_stand_in_secrets_only() {
    let input = files::read("tests/golden/external/input.yaml");
    assert!(input.contains("s3cret-of-the-database"), "the case has a password to look for");
    for stack in render::render(&input, &Settings::default(), Capabilities::with(&[])).expect("render") {
        let text = render::yaml(&stack).expect("YAML");
        for secret in ["s3cret-of-the-database", "s3cret-of-prometheus"] {
            assert!(!text.contains(secret), "{secret} is shown");
        }
        let debug = format!("{:?}", stack.validated);
        assert!(!debug.contains("s3cret"), "Debug shows a password");
    }
    // A private key has line breaks, which JSON escapes; client secrets stay in the Secrets that they come from.
    let input = files::read("tests/golden/auth-oidc/input.yaml");
    assert_eq!(input.matches("s3cret-of-").count(), 3, "the case has values to look for");
    for stack in render::render(&input, &Settings::default(), Capabilities::with(&[])).expect("render") {
        assert!(!render::yaml(&stack).expect("YAML").contains("s3cret-of-"));
        assert!(!format!("{:?}", stack.validated).contains("s3cret-of-"), "Debug shows one");
    }
}
