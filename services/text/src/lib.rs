//! What the classification of texts is about: the tasks, what a text is, the features taken from it,
//! and the model that scores them. Training and serving both use this code, so they cannot drift apart.

mod features;
mod message;
mod model;
mod task;

pub use features::{Features, normalise, words};
pub use message::{InvalidLabel, InvalidMessage, Label, MAX_CHARS, Message};
pub use model::{FORMAT, InvalidModel, Model, Prediction, sha256};
pub use task::{Class, Task};
