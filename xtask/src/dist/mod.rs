//! `cargo xtask dist`: what a release consists of.

mod image;
mod tag;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::build;
use lanekeeper_cli::Image;

/// Builds what a cluster needs: the module, its image, and the WasmPlugins that name it by digest.
///
/// Nothing is sent anywhere; the last lines say how to push the image. The same source makes the same
/// digest. The image tag is local-<commit>; in CI (CI=true) it is release-<version> for a commit that
/// is tagged v<version>, staging-<commit> on main and staging/*, and dev-<commit> elsewhere.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// The repository that the image will be pushed to
    #[arg(long, value_name = "REPOSITORY", default_value = "registry.example/lanekeeper", value_parser = repository)]
    image: String,

    /// The image tag, instead of the one by branch
    #[arg(long, value_parser = tag::parse)]
    tag: Option<String>,

    /// Where to write; what is there is replaced [default: dist in cargo's target directory]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

/// What the committed manifests say where the image belongs.
const PLACEHOLDER: &str = "oci://registry.example/lanekeeper@sha256:\
                           0000000000000000000000000000000000000000000000000000000000000000";

/// Builds it all. `true`: it never ends with less.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let tag = match &args.tag {
        Some(tag) => tag.clone(),
        None => tag::Origin::find()?.tag(),
    };
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| build::target_dir().join("dist"));
    let module = fs::read(build::filter_wasm()?)?;
    let digest = lay_out(&out, &module, &args.image, &tag)?;
    let (image, out) = (&args.image, out.display());
    println!(
        "\
{out}/plugin.wasm         the module
{out}/image               its image, an OCI layout: {tag}, {digest}
{out}/wasm-plugins        the WasmPlugins, which name the image by this digest
{out}/SHA256SUMS          checksums of all files

Push the image with one of
    crane push {out}/image {image}:{tag}
    skopeo copy oci:{out}/image docker://{image}:{tag}
and bring it into the mesh with
    kubectl apply -k {out}/wasm-plugins"
    );
    Ok(true)
}

/// Writes everything for `module` and returns the image's digest.
fn lay_out(out: &Path, module: &[u8], repository: &str, tag: &str) -> Result<String> {
    for part in ["image", "wasm-plugins"] {
        let part = out.join(part);
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| part.display().to_string())?;
        }
    }
    write(&out.join("plugin.wasm"), module)?;
    let digest = image::write_layout(&out.join("image"), module, tag)?;
    let reference = Image::parse(&format!("{repository}@{digest}"), false)
        .map_err(anyhow::Error::msg)?
        .to_string();
    for (name, text) in manifests()? {
        ensure!(
            text.contains(PLACEHOLDER),
            "{name} does not say {PLACEHOLDER}"
        );
        let text = text.replace(PLACEHOLDER, &reference);
        write(&out.join("wasm-plugins").join(name), text.as_bytes())?;
    }
    let mut files = Vec::new();
    for part in ["image", "wasm-plugins"] {
        list(&out.join(part), &mut files)?;
    }
    files.push(out.join("plugin.wasm"));
    files.sort();
    let mut sums = String::new();
    for file in files {
        let name = file.strip_prefix(out)?.display();
        sums += &format!("{}  {name}\n", image::sha256(&fs::read(&file)?));
    }
    write(&out.join("SHA256SUMS"), sums.as_bytes())?;
    Ok(digest)
}

/// The manifests of `wasm-plugins/`, by name.
fn manifests() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(build::workspace().join("wasm-plugins"))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.ends_with(".yaml") {
            found.push((name.to_owned(), fs::read_to_string(&path)?));
        }
    }
    Ok(found)
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    let written = match file.parent() {
        Some(directory) => fs::create_dir_all(directory).and_then(|()| fs::write(file, bytes)),
        None => fs::write(file, bytes),
    };
    written.with_context(|| file.display().to_string())
}

fn repository(text: &str) -> Result<String, String> {
    let text = text.strip_prefix("oci://").unwrap_or(text);
    let name = text.rsplit('/').next().unwrap_or_default();
    if name.contains([':', '@']) {
        return Err("a repository without tag and digest: dist makes both".to_owned());
    }
    Image::parse(text, true).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    #[test]
    fn two_runs_write_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sums = |out: &Path| {
            lay_out(out, MODULE, "registry.example/lanekeeper", "local-1").unwrap();
            fs::read_to_string(out.join("SHA256SUMS")).unwrap()
        };
        let first = sums(one.path());
        assert_eq!(first, sums(two.path()));
        assert_eq!(first, sums(one.path()), "again, over what is there");
        assert!(first.contains("  plugin.wasm\n"), "{first}");
        assert!(first.contains("  image/index.json\n"), "{first}");
    }

    #[test]
    fn the_manifests_name_the_image_by_its_digest() {
        let out = tempfile::tempdir().unwrap();
        let digest = lay_out(out.path(), MODULE, "r.test:5000/a/b", "local-1").unwrap();
        let named = format!("oci://r.test:5000/a/b@{digest}");
        for (name, _) in manifests().unwrap() {
            let text = fs::read_to_string(out.path().join("wasm-plugins").join(&name)).unwrap();
            assert!(text.contains(&named), "{name}");
            assert!(!text.contains(PLACEHOLDER), "{name}");
        }
    }

    #[test]
    fn a_repository_has_neither_tag_nor_digest() {
        assert_eq!(
            repository("oci://r.test:5000/a"),
            Ok("r.test:5000/a".to_owned())
        );
        for bad in ["r.test/a:1", "r.test/a@sha256:0", "a", "r.test/a b"] {
            assert!(repository(bad).is_err(), "{bad}");
        }
    }
}
