//! `cargo xtask dist`: what a release consists of.

mod tag;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use harness::build;
use harness::image::{self, File, Image};
use lanekeeper_cli::WasmPlugin;

/// Builds what a cluster needs: images of the filter and the services, and manifests that name them.
///
/// No container engine is needed, and nothing is sent anywhere: the last lines say how to push the
/// images. The same source makes the same digests. The images' tag is local-<commit>; in CI (CI=true)
/// it is release-<version> for a commit that is tagged v<version>, staging-<commit> on main and
/// staging/*, and dev-<commit> elsewhere.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Args {
    /// Where the images will be pushed to, such as registry.example/team
    #[arg(long, default_value = NOBODY, value_parser = registry)]
    registry: String,

    /// The images' tag, instead of the one by branch
    #[arg(long, value_parser = tag::parse)]
    tag: Option<String>,

    /// Where to write; what is there is replaced [default: dist in cargo's target directory]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

/// What the committed manifests say where the registry belongs.
const NOBODY: &str = "registry.example";

/// The image of the filter.
const FILTER: &str = "lanekeeper";

/// The services as the Dockerfile makes them: the port, and the models in the image.
const SERVICES: [(&str, u16, &[&str]); 4] = [
    ("app-frontend", 8080, &[]),
    ("app-service", 8080, &[]),
    (
        "model-service",
        8081,
        &[
            "sms-stable.json",
            "sms-canary.json",
            "sms-shadow.json",
            "review-stable.json",
            "review-canary.json",
            "review-shadow.json",
        ],
    ),
    ("translation-api", 8082, &[]),
];

/// The folders that are written.
const FOLDERS: [&str; 3] = ["images", "istio", "wasm-plugins"];

const KUSTOMIZATION: &str = "\
# Everything that a cluster with Istio needs: `kubectl apply -k` of this folder. For an overlay, apply
# that of istio/overlays after it.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [istio, wasm-plugins]
sortOptions: { order: fifo }
";

/// The digests of images, by name.
pub(crate) type Digests = BTreeMap<String, String>;

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
    let registry = &args.registry;
    let digests = make(&out, registry, &tag)?;
    let out = out.display();
    println!("{out}/images: OCI layouts, tagged {tag}");
    for (name, digest) in &digests {
        println!("    {name:15}{digest}");
    }
    println!(
        "\
{out}/istio           the manifests, which name the images by these digests
{out}/wasm-plugins    the WasmPlugins, likewise
{out}/plugin.wasm     the filter by itself
{out}/lanekeeper      the command line, a static program
{out}/SHA256SUMS      checksums of all files

Push the images with one of"
    );
    for name in digests.keys() {
        println!("    crane push {out}/images/{name} {registry}/{name}:{tag}");
    }
    println!();
    for name in digests.keys() {
        println!("    skopeo copy oci:{out}/images/{name} docker://{registry}/{name}:{tag}");
    }
    println!("and bring it all into the cluster with\n    kubectl apply -k {out}");
    Ok(true)
}

/// Builds everything, and lays it out in `out` for a registry and a tag.
pub(crate) fn make(out: &Path, registry: &str, tag: &str) -> Result<Digests> {
    let programs = build::static_binaries()?;
    let parts = Parts {
        module: read(&build::filter_wasm()?)?,
        services: service_images(&programs)?,
        lanekeeper: read(&programs.join("lanekeeper"))?,
    };
    parts.lay_out(out, registry, tag)
}

/// The images of the services, of the programs in a folder.
pub(crate) fn service_images(programs: &Path) -> Result<Vec<Image>> {
    let images = SERVICES.into_iter();
    let images = images.map(|service| service_image(service, read(&programs.join(service.0))?));
    images.collect()
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| file.display().to_string())
}

fn service_image((name, port, models): (&str, u16, &[&str]), program: Vec<u8>) -> Result<Image> {
    let folder = build::workspace().join("services/model-service/models");
    let model = |name: &&str| {
        Ok(File {
            path: format!("models/{name}"),
            mode: 0o644,
            bytes: fs::read(folder.join(name)).with_context(|| (*name).to_owned())?,
        })
    };
    let models = models.iter().map(model).collect::<Result<_>>()?;
    Ok(Image::service(name, program, port, models))
}

/// What is built.
struct Parts {
    module: Vec<u8>,
    services: Vec<Image>,
    lanekeeper: Vec<u8>,
}

impl Parts {
    fn lay_out(&self, out: &Path, registry: &str, tag: &str) -> Result<Digests> {
        for folder in FOLDERS {
            let folder = out.join(folder);
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
            }
        }
        write(&out.join("plugin.wasm"), &self.module)?;
        let program = out.join("lanekeeper");
        write(&program, &self.lanekeeper)?;
        make_executable(&program)?;
        let mut digests = Digests::new();
        let filter = Image::plugin(self.module.clone());
        for image in std::iter::once(&filter).chain(&self.services) {
            let layout = out.join("images").join(&image.title);
            digests.insert(image.title.clone(), image.write_layout(&layout, tag)?);
        }
        copy_istio(out, registry, &digests)?;
        let filter = format!("{registry}/{FILTER}@{}", digests[FILTER]);
        write_plugins(&out.join("wasm-plugins"), &filter)?;
        write(&out.join("kustomization.yaml"), KUSTOMIZATION.as_bytes())?;
        write_checksums(out)?;
        Ok(digests)
    }
}

/// The manifests of `istio/`, with the images filled in where nobody has chosen another one.
fn copy_istio(out: &Path, registry: &str, digests: &Digests) -> Result<()> {
    for file in files(&build::workspace().join("istio"))? {
        let name = file.strip_prefix(build::workspace())?;
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let lines: Result<String> = text
            .lines()
            .map(|line| Ok(fill_in(line, registry, digests)? + "\n"))
            .collect();
        let text = lines.with_context(|| name.display().to_string())?;
        write(&out.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// A line that says registry.example, of `images:` or of a pod, gets the image that was made.
fn fill_in(line: &str, registry: &str, digests: &Digests) -> Result<String> {
    let of_a_pod = format!("image: {NOBODY}/");
    if let Some((before, image)) = line.split_once(&of_a_pod) {
        let (name, _) = image.split_once(':').unwrap_or((image, ""));
        let digest = digests.get(name);
        let digest = digest.with_context(|| format!("{line}: no such image is made"))?;
        return Ok(format!("{before}image: {registry}/{name}@{digest}"));
    }
    let nobodys = format!("newName: {NOBODY}/");
    let Some((before, image)) = line.split_once(&nobodys) else {
        return Ok(line.to_owned());
    };
    let (name, rest) = image.split_once(", newTag: ").unwrap_or((image, ""));
    let digest = digests.get(name).filter(|_| rest.ends_with(" }"));
    let Some(digest) = digest else {
        let names: Vec<&str> = digests.keys().map(String::as_str).collect();
        bail!(
            "{line}: {{ …, {nobodys}NAME, newTag: … }}, where NAME is {}",
            names.join(" or ")
        );
    };
    Ok(format!(
        "{before}newName: {registry}/{name}, digest: {digest} }}"
    ))
}

/// The WasmPlugins, made anew from the policies, so that they never lag behind them.
fn write_plugins(out: &Path, image: &str) -> Result<()> {
    let image = lanekeeper_cli::Image::parse(image, false).map_err(anyhow::Error::msg)?;
    let folder = build::workspace().join("wasm-plugins");
    for entry in fs::read_dir(&folder)? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let Some(stem) = name.strip_suffix(".yaml") else {
            continue;
        };
        let mut text = fs::read_to_string(&file)?;
        if stem != "kustomization" {
            let policy = folder.join("policies").join(policy_of(stem));
            let policy = lanekeeper_cli::find_one(&policy)?;
            text = WasmPlugin::renew(&text, &image, &policy, &policy.needs()?)
                .map_err(anyhow::Error::msg)
                .with_context(|| format!("wasm-plugins/{name}"))?;
        }
        write(&out.join(&*name), text.as_bytes())?;
    }
    Ok(())
}

/// The policy of a manifest has its name; the two directions of a sidecar share one.
fn policy_of(manifest: &str) -> String {
    let sidecar = ["-outbound", "-inbound"]
        .iter()
        .find_map(|direction| manifest.strip_suffix(direction));
    match sidecar {
        Some(application) => format!("{application}-sidecar.yaml"),
        None => format!("{manifest}.yaml"),
    }
}

fn write_checksums(out: &Path) -> Result<()> {
    let mut all: Vec<PathBuf> = ["plugin.wasm", "lanekeeper", "kustomization.yaml"]
        .map(|name| out.join(name))
        .into();
    for folder in FOLDERS {
        all.extend(files(&out.join(folder))?);
    }
    all.sort();
    let mut sums = String::new();
    for file in all {
        let name = file.strip_prefix(out)?.display();
        sums += &format!("{}  {name}\n", image::sha256(&fs::read(&file)?));
    }
    write(&out.join("SHA256SUMS"), sums.as_bytes())
}

/// The files in a directory and below.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    let written = match file.parent() {
        Some(directory) => fs::create_dir_all(directory).and_then(|()| fs::write(file, bytes)),
        None => fs::write(file, bytes),
    };
    written.with_context(|| file.display().to_string())
}

fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| file.display().to_string())
}

fn registry(text: &str) -> Result<String, String> {
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let image = lanekeeper_cli::Image::parse(&format!("{text}/{FILTER}"), true);
    let good = image.is_ok() && !text.contains("//") && !path.contains(':') && !host.contains('@');
    match good {
        true => Ok(text.to_owned()),
        false => Err(
            "a registry such as registry.example, localhost:5000 or registry.example/team, \
                      without an image, a tag or a digest: dist makes those"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        let image = |service| service_image(service, b"program".to_vec()).unwrap();
        Parts {
            module: b"\0asm\x01\0\0\0".to_vec(),
            services: SERVICES.map(image).into(),
            lanekeeper: b"lanekeeper".to_vec(),
        }
    }

    #[test]
    fn two_runs_write_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sums = |out: &Path| {
            parts().lay_out(out, NOBODY, "local-1").unwrap();
            fs::read_to_string(out.join("SHA256SUMS")).unwrap()
        };
        let first = sums(one.path());
        assert_eq!(first, sums(two.path()));
        assert_eq!(first, sums(one.path()), "again, over what is there");
        for file in [
            "plugin.wasm",
            "lanekeeper",
            "images/app-service/index.json",
            "istio/sms-checker/kustomization.yaml",
        ] {
            assert!(first.contains(&format!("  {file}\n")), "{file}: {first}");
        }
    }

    #[test]
    fn the_manifests_name_the_images_and_have_the_policies() {
        let out = tempfile::tempdir().unwrap();
        let digests = parts()
            .lay_out(out.path(), "r.test:5000/a", "local-1")
            .unwrap();
        for folder in ["istio", "wasm-plugins"] {
            for file in files(&out.path().join(folder)).unwrap() {
                let text = fs::read_to_string(&file).unwrap();
                let mut settings = text.lines().filter(|line| !line.starts_with('#'));
                let left = settings.any(|line| line.contains(NOBODY));
                assert!(!left, "{}", file.display());
            }
        }
        // The committed ones are what the policies make of them: a test of wasm-plugins/ sees to that.
        let url = format!("  url: oci://r.test:5000/a/lanekeeper@{}", digests[FILTER]);
        for file in files(&out.path().join("wasm-plugins")).unwrap() {
            let name = file.file_name().unwrap();
            let committed = build::workspace().join("wasm-plugins").join(name);
            let committed = fs::read_to_string(committed).unwrap();
            let written = fs::read_to_string(&file).unwrap();
            assert_eq!(committed.lines().count(), written.lines().count());
            for (committed, written) in committed.lines().zip(written.lines()) {
                let expected = match committed.starts_with("  url: ") {
                    true => url.as_str(),
                    false => committed,
                };
                assert_eq!(written, expected, "{name:?}");
            }
        }
    }

    #[test]
    fn an_image_that_somebody_chose_stays() {
        let digests = Digests::from([("shop".to_owned(), "sha256:12".to_owned())]);
        let line = |text: &str| fill_in(text, "r.test", &digests);
        let chosen = "- { name: shop-stable, newName: r.test/shop, digest: sha256:34 }";
        assert_eq!(line(chosen).unwrap(), chosen);
        assert_eq!(
            line("- { name: shop-canary, newName: registry.example/shop, newTag: x }").unwrap(),
            "- { name: shop-canary, newName: r.test/shop, digest: sha256:12 }"
        );
        assert_eq!(
            line("        image: registry.example/shop:blue").unwrap(),
            "        image: r.test/shop@sha256:12"
        );
        let unknown = line("- { name: a, newName: registry.example/other, newTag: x }");
        assert!(unknown.unwrap_err().to_string().contains("NAME is shop"));
    }

    #[test]
    fn the_services_are_those_of_the_dockerfile() {
        let text = fs::read_to_string(build::workspace().join("Dockerfile")).unwrap();
        assert_eq!(SERVICES.map(|(name, ..)| name), build::SERVICES);
        for (name, port, models) in SERVICES {
            let stage = format!("\nFROM scratch AS {name}\n");
            let stage = text.split_once(&stage).unwrap().1;
            let stage = stage.split("\n\n").next().unwrap();
            let ends = format!("\nUSER 65532:65532\nEXPOSE {port}\nENTRYPOINT [\"/{name}\"]");
            assert!(stage.ends_with(&ends), "{stage}");
            for model in models {
                let (_, version) = model.split_once('-').unwrap();
                assert!(stage.contains(&format!("models/*-{version}")), "{stage}");
            }
        }
    }

    #[test]
    fn a_registry_has_neither_tag_nor_digest() {
        for good in ["r.test", "localhost:5000", "r.test:5000/a/b"] {
            assert_eq!(registry(good), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "r.test/",
            "r.test/a:1",
            "r.test/a@sha256:0",
            "r.test/a b",
        ] {
            assert!(registry(bad).is_err(), "{bad}");
        }
    }
}
