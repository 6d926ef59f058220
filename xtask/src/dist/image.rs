//! The module as an OCI image: the "compat" variant of the Wasm image specification, an image FROM
//! scratch whose one layer holds one file, `plugin.wasm`. The same module makes the same bytes.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Writes an OCI image layout with the module as `tag` into `directory`. Returns the digest of its
/// manifest, by which a registry will know the image.
pub(super) fn write_layout(directory: &Path, module: &[u8], tag: &str) -> Result<String> {
    let layer = tar(module)?;
    // Neither name nor time: they would be the only differences.
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(&layer)?;
    let layout = Layout { directory };
    let compressed = layout.blob(LAYER, &gzip.finish()?)?;
    let config = json!({
        "architecture": "wasm",
        "os": "wasi",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = layout.blob(CONFIG, config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [compressed],
        "annotations": {
            "org.opencontainers.image.title": "lanekeeper",
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

fn tar(module: &[u8]) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(module.len().try_into()?);
    header.set_mode(0o644);
    header.set_mtime(0);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "plugin.wasm", module)?;
    Ok(tar.into_inner()?)
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
        super::write(&self.directory.join(name), bytes.as_ref())
    }
}

/// `sha256:…`
fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

/// The SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
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

    #[test]
    fn a_registry_client_finds_the_module_in_the_layout() {
        let layout = tempfile::tempdir().unwrap();
        let digest = write_layout(layout.path(), MODULE, "local-1").unwrap();
        let read = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
        let index = read(fs::read(layout.path().join("index.json")).unwrap());
        let entry = &index["manifests"][0];
        assert_eq!(entry["digest"], digest);
        assert_eq!(
            entry["annotations"]["org.opencontainers.image.ref.name"],
            "local-1"
        );
        let manifest = read(blob(layout.path(), entry));
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 1);
        // What Istio's agent asks for.
        assert_eq!(
            layers[0]["mediaType"],
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
        let mut tar = Vec::new();
        let gzip = blob(layout.path(), &layers[0]);
        GzDecoder::new(gzip.as_slice())
            .read_to_end(&mut tar)
            .unwrap();
        let config = read(blob(layout.path(), &manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"], json!([super::digest(&tar)]));
        let mut archive = tar::Archive::new(tar.as_slice());
        let files: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).unwrap();
                (entry.path().unwrap().into_owned(), bytes)
            })
            .collect();
        assert_eq!(files, [("plugin.wasm".into(), MODULE.to_vec())]);
    }

    #[test]
    fn the_digest_is_that_of_the_module_alone() {
        let digest = |module, tag| {
            let layout = tempfile::tempdir().unwrap();
            write_layout(layout.path(), module, tag).unwrap()
        };
        assert_eq!(digest(MODULE, "local-1"), digest(MODULE, "release-1"));
        assert_ne!(digest(MODULE, "local-1"), digest(b"\0asm", "local-1"));
    }
}
