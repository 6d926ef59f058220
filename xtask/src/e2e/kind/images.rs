//! The images that the suite needs: those of the services, and the filter's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use harness::build;
use harness::image::Image;

use crate::dist;

/// How nodes know the images that are loaded into them; nobody can pull these.
const PREFIX: &str = "localhost/lanekeeper-e2e";
const TAG: &str = "e2e";

/// Where everything lies.
#[derive(Debug)]
pub(super) struct Images {
    /// In place of what is loaded: a prefix and a tag.
    given: Option<(String, String)>,
    archives: Vec<PathBuf>,
    plugin: PathBuf,
}

impl Images {
    /// Builds the programs and puts them into archives, which need no container engine.
    pub(super) fn prepare(dir: &Path, given: Option<&str>) -> Result<Self> {
        let plugin = dir.join("plugin");
        Image::plugin(fs::read(build::filter_wasm()?)?).write_layout(&plugin, TAG)?;
        let folder = dir.join("images");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let mut archives = Vec::new();
        if given.is_none() {
            let programs = build::static_binaries()?;
            let echo = fs::read(programs.join("echo"))?;
            let echo = Image::service("echo", echo, 8080, vec![]);
            for image in dist::service_images(&programs)?.into_iter().chain([echo]) {
                let archive = folder.join(&image.title).with_extension("tar");
                image.write_archive(&archive, &format!("{PREFIX}/{}:{TAG}", image.title))?;
                archives.push(archive);
            }
        }
        let given = given.map(|image| {
            let (prefix, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
            (prefix.to_owned(), tag.to_owned())
        });
        Ok(Self {
            given,
            archives,
            plugin,
        })
    }

    /// For the nodes.
    pub(super) fn archives(&self) -> impl Iterator<Item = &Path> {
        self.archives.iter().map(PathBuf::as_path)
    }

    pub(super) fn prefix(&self) -> &str {
        self.given.as_ref().map_or(PREFIX, |(prefix, _)| prefix)
    }

    pub(super) fn tag(&self) -> &str {
        self.given.as_ref().map_or(TAG, |(_, tag)| tag)
    }

    /// The filter's image, as an OCI layout.
    pub(super) fn plugin(&self) -> &Path {
        &self.plugin
    }
}
