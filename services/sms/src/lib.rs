//! The SMS checker's domain: what a message is, the features taken from it, and the model that
//! scores them. Training and serving both use this code, so they cannot drift apart.

mod features;
mod message;
mod model;

pub use features::{Features, normalise};
pub use message::{InvalidLabel, InvalidMessage, Label, MAX_CHARS, Message};
pub use model::{FORMAT, InvalidModel, Model, sha256};
