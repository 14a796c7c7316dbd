//! Lists of members from a control plane (GROUP_UPDATE), and how the engine that was told tells the others.
//!
//! An engine finds by its heartbeats that a member has another version, and tells it its own map. The member takes it, or answers with the
//! newer one that it has. So one engine that is told suffices, and one that was away learns what it missed.

use std::time::Duration;

use daos_errno::Der;
use drpc_wire::Message;
use drpc_wire::mgmt::GroupUpdateReq;
use drpc_wire::mgmt::group_update_req::Engine as Row;
use engine_config::GroupSource;
use engine_membership::{Map, Member, Refusal, address};
use engine_rpc::{GROUP_TELL, RankCall, Ranks, Request};

use super::GroupKeeper;

/// For a member to take a map.
const PATIENCE: Duration = Duration::from_secs(2);

/// The map in a message of DAOS's.
fn read(message: &GroupUpdateReq) -> Result<Map, String> {
    let member = |row: &Row| {
        let address = address(&row.uri).ok_or_else(|| {
            format!(
                "rank {} is at `{}`, which is no address of TCP (ofi+tcp://10.0.0.3:10010, or 10.0.0.3:10010)",
                row.rank, row.uri
            )
        })?;
        Ok(Member {
            rank: row.rank,
            address,
            incarnation: row.incarnation,
        })
    };
    let members: Vec<Member> = message
        .engines
        .iter()
        .map(member)
        .collect::<Result<_, String>>()?;
    if members.is_empty() {
        return Err("no rank is named: that would be the end of the group".to_owned());
    }
    Map::new(message.map_version, members, None).map_err(|error| error.to_string())
}

fn write(map: &Map) -> Vec<u8> {
    let row = |member: &Member| Row {
        rank: member.rank,
        uri: format!("tcp://{}", member.address),
        incarnation: member.incarnation,
    };
    GroupUpdateReq {
        map_version: map.version(),
        engines: map.members().iter().map(row).collect(),
    }
    .encode_to_vec()
}

impl GroupKeeper {
    /// GROUP_UPDATE.
    pub(crate) fn update(&self, message: &GroupUpdateReq) -> Result<(), Der> {
        if self.source() != Some(GroupSource::Control) {
            tracing::error!(
                version = message.map_version,
                "GROUP_UPDATE refused: this engine's group does not come from a control plane; set `group.source = \"control\"`"
            );
            return Err(Der::NOTSUPPORTED);
        }
        let map = read(message).map_err(|why| {
            tracing::error!(version = message.map_version, "GROUP_UPDATE refused: {why}");
            Der::INVAL
        })?;
        self.take(map).map_err(|refusal| {
            tracing::warn!("GROUP_UPDATE refused: {refusal}");
            refusal.into()
        })
    }

    /// Another engine tells its map.
    pub(super) fn told(&self, request: Request) {
        if self.source() != Some(GroupSource::Control) {
            return request.reply_error(Der::NOTSUPPORTED);
        }
        // Clients do not say who belongs together.
        if request.engine().is_none() {
            return request.reply_error(Der::NO_PERM);
        }
        let map = GroupUpdateReq::decode(request.body()).map(|message| read(&message));
        let Ok(Ok(map)) = map else {
            return request.reply_error(Der::PROTO);
        };
        match self.take(map) {
            Ok(()) => request.reply(0, &[], None),
            Err(Refusal::Older { .. }) => {
                request.reply(Der::GRPVER.neg(), &write(&self.known().map), None);
            }
            Err(refusal) => {
                tracing::error!("another engine's map of the group is refused: {refusal}");
                request.reply_error(refusal.into());
            }
        }
    }

    /// Tells a member that has another version. System xstream.
    pub(super) fn tell(&self, rank: u32) {
        let (Some(keeper), Some(xstream)) = (self.myself(), engine_xstream::current()) else {
            return;
        };
        let map = self.known().map;
        if map.member(self.membership().me()).is_none() {
            return; // who was put out has nothing to say
        }
        let body = write(&map);
        let task = async move {
            let Ok(ranks) = Ranks::current() else { return };
            let answer = ranks
                .call(rank, RankCall::new(GROUP_TELL, body, PATIENCE))
                .await;
            let Ok(reply) = answer else { return };
            if reply.status != Der::GRPVER.neg() || reply.body.is_empty() {
                return;
            }
            let newer = GroupUpdateReq::decode(reply.body.as_slice());
            if let Ok(Ok(map)) = newer.map(|message| read(&message))
                && let Err(refusal) = keeper.take(map)
            {
                tracing::warn!(rank, "a member's map of the group is refused: {refusal}");
            }
        };
        if let Err(error) = xstream.spawn("group tell", task) {
            tracing::warn!(rank, %error, "a member is not told of the group's version");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rank: u32, uri: &str) -> Row {
        Row {
            rank,
            uri: uri.to_owned(),
            incarnation: 4,
        }
    }

    fn said(map_version: u32, engines: Vec<Row>) -> Result<Map, String> {
        read(&GroupUpdateReq {
            map_version,
            engines,
        })
    }

    #[test]
    fn maps_travel_as_daos_writes_them() {
        let map = said(
            3,
            vec![row(2, "ofi+tcp://10.0.0.2:7"), row(0, "10.0.0.1:7")],
        )
        .unwrap();
        let again = GroupUpdateReq::decode(&*write(&map)).unwrap();
        assert_eq!(again.engines[0].uri, "tcp://10.0.0.1:7");
        assert_eq!(read(&again), Ok(map));
    }

    #[test]
    fn maps_that_are_none_are_named() {
        assert!(said(1, vec![]).is_err_and(|why| why.contains("no rank")));
        let strange = said(1, vec![row(0, "ofi+verbs://10.0.0.1:7")]);
        assert!(strange.is_err_and(|why| why.contains("rank 0 is at `ofi+verbs")));
        assert!(said(0, vec![row(0, "10.0.0.1:7")]).is_err_and(|why| why.contains("version 0")));
    }
}
