//! What Produce and Fetch have in common: a list of topics, each with a list of partitions, in requests and responses.

use crate::DecodeError;
use crate::wire::{Reader, Span, Write};
use std::ops::Range;
use uuid::Uuid;

/// How a request names a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicName {
    /// UTF-8 text at this place in the frame.
    Name(Span),
    Id(Uuid),
}

/// One topic of a request; `partitions` is a range of the request's list of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: TopicName,
    pub partitions: Range<usize>,
}

/// How a version of a request or response writes the list.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Form {
    /// Topics are named by id.
    pub(crate) ids: bool,
    /// Compact lengths and tagged fields (KIP-482).
    pub(crate) flexible: bool,
}

impl Form {
    /// That of `version` of a request type that names topics by id and is flexible since these versions.
    pub(crate) fn of(version: i16, ids_since: i16, flexible_since: i16) -> Self {
        Self {
            ids: version >= ids_since,
            flexible: version >= flexible_since,
        }
    }

    /// A topic's name or id.
    pub(crate) fn name(self, reader: &mut Reader<'_>) -> Result<TopicName, DecodeError> {
        if self.ids {
            reader.uuid().map(TopicName::Id)
        } else {
            reader.string(self.flexible).map(TopicName::Name)
        }
    }

    /// Reads the list into `topics` and `partitions`, which are empty; `partition` reads what comes before the tags of each. No
    /// more than `entries_max` of either are read.
    #[inline]
    pub(crate) fn decode<'f, P>(
        self,
        reader: &mut Reader<'f>,
        entries_max: usize,
        topics: &mut Vec<Topic>,
        partitions: &mut Vec<P>,
        mut partition: impl FnMut(&mut Reader<'f>) -> Result<P, DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..reader.count(self.flexible)? {
            let name = self.name(reader)?;
            let first = partitions.len();
            for _ in 0..reader.count(self.flexible)? {
                partitions.push(partition(reader)?);
                reader.tags(self.flexible)?;
                if partitions.len() > entries_max {
                    return Err(DecodeError::TooMany);
                }
            }
            reader.tags(self.flexible)?;
            topics.push(Topic {
                name,
                partitions: first..partitions.len(),
            });
            if topics.len() > entries_max {
                return Err(DecodeError::TooMany);
            }
        }
        Ok(())
    }
}

/// The list in a response that is being written: holds it to the counts that it has announced.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    form: Form,
    topics: usize,
    partitions: usize,
    in_topic: bool,
}

impl Announced {
    /// A list of `topics` topics.
    pub(crate) fn begin(out: &mut Vec<u8>, form: Form, topics: usize) -> Self {
        out.put_length(topics, form.flexible);
        Self {
            form,
            topics,
            ..Self::default()
        }
    }

    /// The next topic, named as in the request (`name` is not written in versions with topic ids, `id` only in those).
    pub(crate) fn topic(&mut self, out: &mut Vec<u8>, name: &[u8], id: Uuid, partitions: usize) {
        self.close_topic(out);
        assert!(self.topics > 0, "more topics than announced");
        self.topics -= 1;
        self.partitions = partitions;
        self.in_topic = true;
        if self.form.ids {
            out.extend_from_slice(id.as_bytes());
        } else {
            let name = std::str::from_utf8(name).unwrap_or_default();
            out.put_string(name, self.form.flexible);
        }
        out.put_length(partitions, self.form.flexible);
    }

    /// The next partition of the topic is about to be written.
    pub(crate) fn partition(&mut self) {
        assert!(self.partitions > 0, "more partitions than announced");
        self.partitions -= 1;
    }

    /// The end of the list.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        self.close_topic(out);
        assert!(self.topics == 0, "fewer topics than announced");
    }

    fn close_topic(&mut self, out: &mut Vec<u8>) {
        assert!(self.partitions == 0, "fewer partitions than announced");
        if self.in_topic {
            out.put_no_tags(self.form.flexible);
            self.in_topic = false;
        }
    }
}
