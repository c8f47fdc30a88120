//! Image archives: the same content gives the same file.

use e2e::images::{Config, Files, Image, write_archive};

fn image() -> Image {
    let mut files = Files::default();
    files
        .text("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\n")
        .copy("/bin/true", "usr/bin/true", 0o755)
        .folder("tmp", 0o1777);
    let config = Config { entrypoint: vec!["/usr/bin/true".into()], user: "65532:65532".into(), ..Config::default() };
    Image { name: "localhost/perses-stack/test:dev".into(), config, layers: vec![files.finish().unwrap()] }
}

#[test]
fn archives_are_deterministic_and_name_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.tar", "b.tar"].map(|name| folder.path().join(name));
    for path in &paths {
        write_archive(&[image()], path).unwrap();
    }
    let [first, second] = paths.map(|path| std::fs::read(path).unwrap());
    assert!(first == second, "two archives of the same image differ");

    let mut archive = tar::Archive::new(first.as_slice());
    let mut manifest = None;
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.header().mtime().unwrap(), 0);
        let name = entry.path().unwrap().display().to_string();
        if name == "manifest.json" {
            manifest = Some(serde_json::from_reader::<_, serde_json::Value>(entry).unwrap());
        }
        names.push(name);
    }
    let manifest = manifest.unwrap();
    assert_eq!(manifest[0]["RepoTags"][0], "localhost/perses-stack/test:dev");
    for part in [&manifest[0]["Config"], &manifest[0]["Layers"][0]] {
        assert!(names.contains(&part.as_str().unwrap().to_owned()), "{part} is not in {names:?}");
    }
}
