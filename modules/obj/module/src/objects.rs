//! Put, get, list on a target.

use std::rc::Rc;
use std::time::Duration;

use module_sdk::{Der, DmaBuf, Reply, Request, sleep};
use obj_proto::{ObjectName, PIECE_SIZE, Placement, wire};
use obj_store::{ObjectInfo, Payload, PieceData, Store, StoreError, UNIT};
use uuid::Uuid;

use crate::device::{Device, Dma};
use crate::failure::Failure;
use crate::handles::{Access, container};
use crate::target::{LEASE, Target, here, wall};

/// How often a read waits for a buffer before it gives up, and how long each time.
const BUFFER_WAITS: (u32, Duration) = (400, Duration::from_millis(5));

/// Who serves a request: this target, with its store open.
pub(crate) struct Served {
    pub(crate) target: Rc<Target>,
    pub(crate) store: Store<Device>,
}

impl Served {
    pub(crate) fn new() -> Result<Served, Failure> {
        let target = here()?;
        let store = target.store()?;
        Ok(Served { target, store })
    }

    /// The container and where the object lives, if the request is right to come here for its head, and its handle good for it.
    pub(crate) async fn head(
        &self,
        cont: &[u8],
        name: &str,
        access: Access,
    ) -> Result<(Uuid, Placement), Failure> {
        let cont = container(&self.target, cont, access).await?;
        let place = place(&cont, name)?;
        self.is_mine(place.head())?;
        Ok((cont, place))
    }

    /// The container, if the request is right to come here for this piece, and its handle good for it.
    pub(crate) async fn piece(
        &self,
        cont: &[u8],
        (name, piece): (&str, u32),
        access: Access,
    ) -> Result<Uuid, Failure> {
        let cont = container(&self.target, cont, access).await?;
        self.is_mine(place(&cont, name)?.piece(piece))?;
        Ok(cont)
    }

    fn is_mine(&self, target: u32) -> Result<(), Failure> {
        if target == self.target.index {
            return Ok(());
        }
        let mine = self.target.index;
        let text = format!("this belongs to target {target}, not to target {mine}");
        Err(Failure::new(Der::BAD_TARGET, text))
    }

    /// Counts what was stored and keeps the gauges right.
    pub(crate) fn stored(&self, bytes: usize) {
        self.target.metrics.puts.add(1);
        self.target.metrics.bytes_in.add(bytes as u64);
        self.target.measure(&self.store);
    }

    /// Reads from a piece, waiting for a buffer if they are all in use.
    async fn read(
        &self,
        cont: &Uuid,
        name: &str,
        piece: (u64, u32),
        range: (u32, u32),
    ) -> Result<PieceData<Dma>, Failure> {
        for _ in 0..BUFFER_WAITS.0 {
            match self.store.get_piece(cont, name, piece, range).await {
                Err(StoreError::NoMemory { .. }) => sleep(BUFFER_WAITS.1).await,
                Err(error @ StoreError::Csum(_)) => {
                    self.target.metrics.damaged.add(1);
                    module_sdk::error!("{error}");
                    return Err(error.into());
                }
                result => {
                    let data = result?;
                    self.target.metrics.gets.add(1);
                    self.target.metrics.bytes_out.add(data.len as u64);
                    return Ok(data);
                }
            }
        }
        Err(Failure::new(
            Der::NOMEM,
            "all data buffers of the target are in use: try again",
        ))
    }
}

fn place(cont: &Uuid, name: &str) -> Result<Placement, Failure> {
    let name = ObjectName::new(name)?;
    let targets = module_sdk::targets();
    Ok(Placement::new(cont, name.as_str(), targets))
}

/// The bulk data of a request, with room for whole units.
pub(crate) fn payload(request: &Request, csums: Vec<u32>) -> Result<Payload<Dma>, Failure> {
    let len = request.bulk_len();
    let bulk = request.take_bulk();
    let padded = len.next_multiple_of(UNIT);
    if padded <= bulk.capacity() {
        return Ok(Payload {
            buf: Dma::new(bulk),
            len,
            csums,
        });
    }
    let mut room = DmaBuf::alloc(padded)?;
    room[..len].copy_from_slice(&bulk[..len]);
    Ok(Payload {
        buf: Dma::new(room),
        len,
        csums,
    })
}

pub(crate) fn object(info: ObjectInfo) -> wire::ObjectInfo {
    let ObjectInfo {
        name,
        size,
        version,
        modified,
        ..
    } = info;
    wire::ObjectInfo {
        name,
        size,
        version,
        modified,
    }
}

pub(crate) async fn put(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::PutReq = request.decode()?;
    let (cont, _) = served.head(&req.cont, &req.name, Access::Write).await?;
    let payload = payload(&request, req.csums)?;
    let len = payload.len;
    let info = served.store.put(&cont, &req.name, payload, wall()).await?;
    served.stored(len);
    served.target.work.notify_all();
    Ok(Reply::message(&wire::PutRep {
        object: Some(object(info)),
    }))
}

pub(crate) async fn get(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::GetReq = request.decode()?;
    let (cont, _) = served.head(&req.cont, &req.name, Access::Read).await?;
    let info = served.store.stat(&cont, &req.name)?;
    if req.offset > info.size {
        let text = format!(
            "offset {} is behind the end of '{}', which has {} bytes",
            req.offset, req.name, info.size
        );
        return Err(Failure::new(Der::INVAL, text));
    }
    let wanted = if req.length == 0 {
        u64::MAX
    } else {
        req.length
    };
    let end = req.offset.saturating_add(wanted).min(info.size);
    let first_end = end.min(PIECE_SIZE as u64);
    let pin = if end > PIECE_SIZE as u64 {
        served.target.pin(info.version)?
    } else {
        0
    };
    let mut reply = wire::GetRep {
        pin,
        lease: LEASE.as_nanos() as u64,
        ..Default::default()
    };
    let mut bulk = DmaBuf::empty();
    if req.offset < first_end {
        let range = (req.offset as u32, (first_end - req.offset) as u32);
        let read = served
            .read(&cont, &req.name, (info.version, 0), range)
            .await;
        let data = read.inspect_err(|_| served.target.unpin(pin))?;
        reply.offset = data.offset.into();
        reply.csums = data.csums;
        bulk = data.buf.with_len(data.len);
    }
    reply.object = Some(object(info));
    Ok(Reply::message(&reply).with_bulk(bulk))
}

pub(crate) async fn get_piece(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::GetPieceReq = request.decode()?;
    let cont = served
        .piece(&req.cont, (&req.name, req.piece), Access::Read)
        .await?;
    let piece = (req.version, req.piece);
    let data = served
        .read(&cont, &req.name, piece, (req.offset, req.length))
        .await?;
    let reply = wire::GetPieceRep {
        offset: data.offset,
        csums: data.csums,
    };
    Ok(Reply::message(&reply).with_bulk(data.buf.with_len(data.len)))
}

pub(crate) async fn get_renew(request: Request) -> Result<Reply, Failure> {
    let req: wire::GetRenewReq = request.decode()?;
    here()?.renew_pin(req.pin)?;
    Ok(Reply::ok())
}

pub(crate) async fn get_close(request: Request) -> Result<Reply, Failure> {
    let req: wire::GetCloseReq = request.decode()?;
    here()?.unpin(req.pin);
    Ok(Reply::ok())
}

pub(crate) async fn stat(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::StatReq = request.decode()?;
    let (cont, _) = served.head(&req.cont, &req.name, Access::Read).await?;
    let info = served.store.stat(&cont, &req.name)?;
    Ok(Reply::message(&wire::StatRep {
        object: Some(object(info)),
    }))
}

pub(crate) async fn remove(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::RemoveReq = request.decode()?;
    let (cont, _) = served.head(&req.cont, &req.name, Access::Write).await?;
    served.store.remove(&cont, &req.name).await?;
    served.target.measure(&served.store);
    served.target.work.notify_all();
    Ok(Reply::ok())
}

pub(crate) async fn list(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::ListReq = request.decode()?;
    let cont = container(&served.target, &req.cont, Access::Read).await?;
    let page = served
        .store
        .list(&cont, &req.after, &req.prefix, req.limit as usize)?;
    let objects = page.objects.into_iter().map(object).collect();
    Ok(Reply::message(&wire::ListRep {
        objects,
        more: page.more,
    }))
}
