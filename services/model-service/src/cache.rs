//! Artefacts that were fetched, in a directory that several processes may share.
//!
//! A file is called by the checksum of what is in it, and moved to that name when it is whole: nobody
//! ever reads a half of one, and it does not matter who of several writers is last.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::Context;

use crate::artefact::Checksum;

pub(crate) struct Cache(PathBuf);

impl Cache {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn path(&self, checksum: &Checksum) -> PathBuf {
        self.0.join(format!("{}.json", checksum.as_str()))
    }

    /// What is kept under `checksum`; `None` if that is nothing, or not what it says it is.
    pub(crate) fn get(&self, checksum: &Checksum) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.path(checksum);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let cannot = format!("MODEL_CACHE: cannot read {}", path.display());
                return Err(error).context(cannot);
            }
        };
        let sound = Checksum::of(&bytes) == *checksum;
        let path = path.display();
        match sound {
            true => tracing::info!(%path, "in the cache"),
            false => tracing::warn!(%path, "damaged in the cache: it is fetched again"),
        }
        Ok(sound.then_some(bytes))
    }

    /// Keeps `bytes`, which have this checksum.
    pub(crate) fn put(&self, checksum: &Checksum, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.path(checksum);
        let write = || {
            fs::create_dir_all(&self.0)?;
            let mut file = tempfile::Builder::new()
                .prefix(".incomplete-")
                // For others on the same volume, too, which may run as another user.
                .permissions(Permissions::from_mode(0o644))
                .tempfile_in(&self.0)?;
            file.write_all(bytes)?;
            // Or a crash of the machine could leave the name without the contents.
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        let written: std::io::Result<()> = write();
        written.with_context(|| format!("MODEL_CACHE: cannot write {}", path.display()))?;
        tracing::info!(path = %path.display(), "kept in the cache");
        Ok(())
    }
}
