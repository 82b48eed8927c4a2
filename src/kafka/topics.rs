//! The topics that a connection uses, so that the shared maps are asked once per topic and change.

use std::sync::Arc;

use broker::stream::{Topic, Topics};
use hashbrown::HashMap;
use uuid::Uuid;

/// Topics by the names and ids that the client has used.
#[derive(Debug, Default)]
pub(super) struct TopicCache {
    generation: u64,
    by_name: HashMap<Arc<str>, Arc<Topic>, foldhash::fast::RandomState>,
    by_id: HashMap<Uuid, Arc<Topic>, foldhash::fast::RandomState>,
}

impl TopicCache {
    fn refresh(&mut self, topics: &Topics) {
        let generation = topics.generation();
        if generation != self.generation {
            self.generation = generation;
            self.by_name.clear();
            self.by_id.clear();
        }
    }

    /// The topic with this name.
    pub(super) fn get(&mut self, topics: &Topics, name: &[u8]) -> Option<Arc<Topic>> {
        self.refresh(topics);
        let name = std::str::from_utf8(name).ok()?;
        if let Some(topic) = self.by_name.get(name) {
            return Some(Arc::clone(topic));
        }
        let topic = topics.get(name)?;
        self.by_name
            .insert(Arc::clone(&topic.name), Arc::clone(&topic));
        Some(topic)
    }

    /// The topic with this id.
    pub(super) fn by_id(&mut self, topics: &Topics, id: Uuid) -> Option<Arc<Topic>> {
        self.refresh(topics);
        if let Some(topic) = self.by_id.get(&id) {
            return Some(Arc::clone(topic));
        }
        let topic = topics.by_id(id)?;
        self.by_id.insert(id, Arc::clone(&topic));
        Some(topic)
    }
}
