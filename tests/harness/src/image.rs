//! Container images without a container engine: OCI image layouts, FROM scratch, with one layer. The
//! same content makes the same bytes, and so the same digest.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image to be written.
#[derive(Clone, Debug)]
pub struct Image {
    /// What it is called where its tag does not tell.
    pub title: String,
    /// For which processors, in the words of OCI.
    pub architecture: &'static str,
    /// For which system, in the words of OCI.
    pub os: &'static str,
    /// How it is run.
    pub config: Value,
    /// What is in it, in this order. Folders come by themselves.
    pub files: Vec<File>,
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// From the root, without the first slash.
    pub path: String,
    /// Such as 0o644.
    pub mode: u32,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl Image {
    /// The filter as Istio's agent takes it: the "compat" variant of the Wasm image specification, one
    /// file called `plugin.wasm`.
    pub fn plugin(module: Vec<u8>) -> Self {
        Self {
            title: "lanekeeper".to_owned(),
            architecture: "wasm",
            os: "wasi",
            config: json!({}),
            files: vec![File {
                path: "plugin.wasm".to_owned(),
                mode: 0o644,
                bytes: module,
            }],
        }
    }

    /// A static program of this machine, which serves on a port, and the files that it reads.
    pub fn service(name: &str, program: Vec<u8>, port: u16, files: Vec<File>) -> Self {
        let program = File {
            path: name.to_owned(),
            mode: 0o755,
            bytes: program,
        };
        Self {
            title: name.to_owned(),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
            os: "linux",
            config: json!({
                "User": "65532:65532",
                "ExposedPorts": { format!("{port}/tcp"): {} },
                "Entrypoint": [format!("/{name}")],
            }),
            files: std::iter::once(program).chain(files).collect(),
        }
    }

    /// Writes an OCI image layout with the image as `tag` into `directory`. Returns the digest of its
    /// manifest, by which a registry will know the image.
    pub fn write_layout(&self, directory: &Path, tag: &str) -> Result<String> {
        let layer = self.layer()?;
        // Neither name nor time: they would be the only differences.
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        gzip.write_all(&layer)?;
        let layout = Layout { directory };
        let compressed = layout.blob(LAYER, &gzip.finish()?)?;
        let config = json!({
            "architecture": self.architecture,
            "os": self.os,
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        let config = layout.blob(CONFIG, config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [compressed],
            "annotations": {
                "org.opencontainers.image.title": self.title,
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
            },
        });
        let mut manifest = layout.blob(MANIFEST, manifest.to_string().as_bytes())?;
        let digest = manifest["digest"].as_str().map(str::to_owned);
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        layout.file(
            "index.json",
            json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string(),
        )?;
        layout.file(
            "oci-layout",
            json!({ "imageLayoutVersion": "1.0.0" }).to_string(),
        )?;
        digest.context("a descriptor has a digest")
    }

    /// Writes an archive of an OCI image layout, by which containerd knows the image as `name`.
    pub fn write_archive(&self, archive: &Path, name: &str) -> Result<()> {
        let layout = tempfile::tempdir()?;
        self.write_layout(layout.path(), name)?;
        let index = layout.path().join("index.json");
        let mut text: Value = serde_json::from_slice(&fs::read(&index)?)?;
        text["manifests"][0]["annotations"]["io.containerd.image.name"] = name.into();
        fs::write(&index, text.to_string())?;
        let file = fs::File::create(archive).with_context(|| archive.display().to_string())?;
        let mut tar = tar::Builder::new(file);
        tar.append_dir_all("", layout.path())?;
        Ok(tar.finish()?)
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut folders = BTreeSet::new();
        for file in &self.files {
            // Where a layer does not name a folder, engines differ in who may enter it.
            let parents: Vec<&Path> = Path::new(&file.path).ancestors().skip(1).collect();
            for folder in parents.into_iter().rev() {
                if folder.as_os_str().is_empty() || !folders.insert(folder) {
                    continue;
                }
                let mut header = header(0o755, 0)?;
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, folder, std::io::empty())?;
            }
            let mut header = header(file.mode, file.bytes.len())?;
            tar.append_data(&mut header, &file.path, file.bytes.as_slice())?;
        }
        Ok(tar.into_inner()?)
    }
}

fn header(mode: u32, size: usize) -> Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_size(size.try_into()?);
    header.set_mode(mode);
    header.set_mtime(0);
    Ok(header)
}

struct Layout<'a> {
    directory: &'a Path,
}

impl Layout<'_> {
    /// Writes a blob and describes it.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = digest(bytes);
        self.file(&format!("blobs/{}", digest.replace(':', "/")), bytes)?;
        Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        let file = self.directory.join(name);
        file.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&file, bytes))
            .with_context(|| file.display().to_string())
    }
}

/// `sha256:…`
fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

/// The SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn blob(layout: &Path, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let bytes = fs::read(layout.join("blobs").join(digest.replace(':', "/"))).unwrap();
        assert_eq!(digest, super::digest(&bytes));
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    /// The entry of the index, the configuration and all that is in the image, folders included.
    fn content(layout: &Path) -> (Value, Value, Vec<File>) {
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let index = read(fs::read(layout.join("index.json")).unwrap());
        let manifest = read(blob(layout, &index["manifests"][0]));
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 1);
        // What Istio's agent asks for.
        assert_eq!(
            layers[0]["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        let mut tar = Vec::new();
        let gzip = blob(layout, &layers[0]);
        GzDecoder::new(gzip.as_slice())
            .read_to_end(&mut tar)
            .unwrap();
        let config = read(blob(layout, &manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"], json!([super::digest(&tar)]));
        let mut archive = tar::Archive::new(tar.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            File {
                path: entry.path().unwrap().display().to_string(),
                mode: entry.header().mode().unwrap(),
                bytes,
            }
        });
        let entries = entries.collect();
        (index["manifests"][0].clone(), config, entries)
    }

    #[test]
    fn a_registry_client_finds_the_module_in_the_layout() {
        let layout = tempfile::tempdir().unwrap();
        let image = Image::plugin(MODULE.to_vec());
        let digest = image.write_layout(layout.path(), "local-1").unwrap();
        let (entry, config, files) = content(layout.path());
        assert_eq!(entry["digest"], digest);
        assert_eq!(
            entry["annotations"]["org.opencontainers.image.ref.name"],
            "local-1"
        );
        assert_eq!(config["architecture"], "wasm");
        assert_eq!(files, image.files);
    }

    #[test]
    fn an_engine_finds_how_to_run_a_service() {
        let layout = tempfile::tempdir().unwrap();
        let file = |path: &str| File {
            path: path.to_owned(),
            mode: 0o644,
            bytes: b"{}".to_vec(),
        };
        let files = vec![file("models/a.json"), file("models/b.json")];
        let image = Image::service("shop", b"program".to_vec(), 8080, files);
        image.write_layout(layout.path(), "local-1").unwrap();
        let (_, config, files) = content(layout.path());
        assert_eq!(config["os"], "linux");
        assert_eq!(config["config"]["Entrypoint"], json!(["/shop"]));
        assert_eq!(config["config"]["ExposedPorts"], json!({ "8080/tcp": {} }));
        let modes: Vec<_> = files
            .iter()
            .map(|file| (file.path.as_str(), file.mode))
            .collect();
        assert_eq!(
            modes,
            [
                ("shop", 0o755),
                ("models", 0o755),
                ("models/a.json", 0o644),
                ("models/b.json", 0o644),
            ]
        );
    }

    #[test]
    fn the_digest_is_that_of_the_module_alone() {
        let digest = |module: &[u8], tag| {
            let layout = tempfile::tempdir().unwrap();
            let image = Image::plugin(module.to_vec());
            image.write_layout(layout.path(), tag).unwrap()
        };
        assert_eq!(digest(MODULE, "local-1"), digest(MODULE, "release-1"));
        assert_ne!(digest(MODULE, "local-1"), digest(b"\0asm", "local-1"));
    }
}
