//! What the owner calls topics, and itself in them.
//!
//! The file `topics` of the data directory has a line for each: id, title, own name, and up to when
//! the owner has read it in milliseconds since 1970, with tabs between them; what is not said is
//! empty. Lines that begin with `#` are skipped, and so are, with a warning, those that make no
//! sense: a person may edit the file.

use std::collections::BTreeMap;

use baran_proto::topic::access::invite::{TITLE_LEN_MAX, is_title};

use crate::TopicId;
use crate::data::{DataDir, DataError};

const FILE: &str = "topics";
/// Most lines: what a node takes part in.
const TOPICS_MAX: usize = 1_024;
/// Longest file, for who edits it: twice what this program writes.
const LEN_MAX: usize = 512 * 1024;

/// What the owner calls a topic, and itself there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicLabel {
    /// The topic's title.
    pub title: Option<String>,
    /// The owner's name.
    pub name: Option<String>,
    /// Up to when what was said there was shown to the owner, in milliseconds since 1970.
    pub read_ms: Option<u64>,
}

/// The file `topics` of a data directory. The caller holds its
/// [`DataLock`](crate::data::DataLock).
#[derive(Debug, Clone)]
pub struct TopicLabels {
    dir: DataDir,
}

impl TopicLabel {
    /// Longest title and longest name, in bytes.
    pub const LEN_MAX: usize = TITLE_LEN_MAX;

    /// Whether a text can be a title or a name: 1 to [`TopicLabel::LEN_MAX`] bytes on one line.
    #[must_use]
    pub fn is_valid(text: &str) -> bool {
        is_title(text)
    }
}

impl TopicLabels {
    /// The file of `dir`. It need not be there.
    #[must_use]
    pub fn of(dir: &DataDir) -> Self {
        Self { dir: dir.clone() }
    }

    /// All that there are.
    ///
    /// # Errors
    ///
    /// If the file is a symbolic link, is of another user, is open to others, is too long or cannot
    /// be read.
    pub fn load(&self) -> Result<BTreeMap<TopicId, TopicLabel>, DataError> {
        self.dir.read_lines(FILE, LEN_MAX, TOPICS_MAX, parse)
    }

    /// Changes what is said of a topic; texts that cannot be titles or names are left out. Returns
    /// when that is on disk; blocks until then.
    ///
    /// # Errors
    ///
    /// If there are 1,024 of them, or the file cannot be read or written.
    pub fn change(
        &self,
        topic: TopicId,
        change: impl FnOnce(&mut TopicLabel),
    ) -> Result<(), DataError> {
        let mut labels = self.load()?;
        let before = labels.get(&topic).cloned().unwrap_or_default();
        let mut label = before.clone();
        change(&mut label);
        let is_valid = |text: &String| TopicLabel::is_valid(text);
        label.title = label.title.filter(is_valid);
        label.name = label.name.filter(is_valid);
        if label == before {
            return Ok(());
        }
        if label == TopicLabel::default() {
            labels.remove(&topic);
        } else {
            labels.insert(topic, label);
        }
        if labels.len() > TOPICS_MAX {
            let full = format!("it has {TOPICS_MAX} topics: remove the lines of some");
            return Err(self.dir.misfit("add to", FILE, full));
        }
        let text: String = labels.iter().map(|(topic, label)| line(*topic, label)).collect();
        self.dir.replace(FILE, text.as_bytes())
    }
}

fn line(topic: TopicId, label: &TopicLabel) -> String {
    let [title, name] = [&label.title, &label.name].map(|text| text.as_deref().unwrap_or_default());
    let read_ms = label.read_ms.map(|ms| ms.to_string()).unwrap_or_default();
    format!("{topic}\t{title}\t{name}\t{read_ms}\n")
}

fn parse(line: &str) -> Option<(TopicId, TopicLabel)> {
    let mut parts = line.split('\t');
    let topic = parts.next()?.parse().ok()?;
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let (title, name, read_ms) = (next(), next(), next());
    let read_ms = read_ms.map(str::parse).transpose().ok()?;
    let is_valid = |text: Option<&str>| text.is_none_or(TopicLabel::is_valid);
    if parts.next().is_some() || !is_valid(title) || !is_valid(name) {
        return None;
    }
    let [title, name] = [title, name].map(|text| text.map(str::to_owned));
    Some((topic, TopicLabel { title, name, read_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(n: u16) -> TopicId {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        TopicId::from_bytes(bytes)
    }

    #[test]
    fn labels_are_kept_changed_and_forgotten() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&place.path().join("data")).unwrap();
        let labels = TopicLabels::of(&dir);
        assert!(labels.load().unwrap().is_empty());
        labels.change(topic(1), |label| label.title = Some("a club".to_owned())).unwrap();
        labels.change(topic(1), |label| label.name = Some("ana".to_owned())).unwrap();
        labels.change(topic(1), |label| label.read_ms = Some(7)).unwrap();
        labels.change(topic(2), |label| label.name = Some("two\nlines".to_owned())).unwrap();
        let loaded = labels.load().unwrap();
        let [title, name] = ["a club", "ana"].map(|text| Some(text.to_owned()));
        let label = TopicLabel { title, name, read_ms: Some(7) };
        assert_eq!(loaded, [(topic(1), label)].into());
        labels.change(topic(1), |label| *label = TopicLabel::default()).unwrap();
        assert!(labels.load().unwrap().is_empty());
    }

    #[test]
    fn the_file_is_bounded_and_bears_what_people_write() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&place.path().join("data")).unwrap();
        let labels = TopicLabels::of(&dir);
        let long = "x".repeat(TopicLabel::LEN_MAX + 1);
        let text = format!("# mine\n\n{}\tbirds\nnonsense\n{}\t{long}\t\n", topic(1), topic(2));
        dir.replace(FILE, text.as_bytes()).unwrap();
        assert_eq!(labels.load().unwrap().len(), 1);
        let all: String = (0..1_024).map(|n| format!("{}\tt\t\n", topic(n))).collect();
        dir.replace(FILE, all.as_bytes()).unwrap();
        let name = |label: &mut TopicLabel| label.title = Some("new".to_owned());
        labels.change(topic(5_000), name).unwrap_err();
        labels.change(topic(1_000), name).unwrap();
        dir.replace(FILE, &vec![b'#'; LEN_MAX + 1]).unwrap();
        labels.load().unwrap_err();
    }
}
