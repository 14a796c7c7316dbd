//! Lists of members that people and control planes write.

use std::sync::Arc;

use crate::{Announcement, Desk, Map, Report, Source, SourceError, Standing};

/// The list in the configuration: it is what it is until the engine ends.
#[derive(Debug)]
pub struct Listed(Map);

impl Listed {
    /// With these members.
    pub fn new(map: Map) -> Listed {
        Listed(map)
    }
}

impl Source for Listed {
    fn name(&self) -> &'static str {
        "static"
    }

    fn rank(&mut self, _: &str, asked: Option<u32>) -> Result<Option<u32>, SourceError> {
        Ok(asked)
    }

    fn start(&mut self, me: Announcement, desk: Arc<dyn Desk>) -> Result<(), SourceError> {
        desk.report(Report {
            map: Some(self.0.clone()),
            standing: Standing::good(),
            incarnation: me.incarnation,
        });
        Ok(())
    }

    fn stop(&mut self) {}
}

/// A control plane, which tells an engine when it wants to: the engine's handler of GROUP_UPDATE gives its maps to the keeper, and the
/// answer goes back.
#[derive(Debug)]
pub struct Told;

impl Source for Told {
    fn name(&self) -> &'static str {
        "control"
    }

    fn rank(&mut self, _: &str, asked: Option<u32>) -> Result<Option<u32>, SourceError> {
        Ok(asked)
    }

    fn start(&mut self, _: Announcement, _: Arc<dyn Desk>) -> Result<(), SourceError> {
        Ok(())
    }

    fn stop(&mut self) {}
}
