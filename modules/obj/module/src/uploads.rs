//! Objects of several pieces, across targets.
//!
//! The head target logs the intent, opens the version on every target, and from then on each takes the pieces that belong
//! to it. Commit seals the version everywhere, counts what arrived, and only then makes it the object.

use module_sdk::{Der, Reply, Request};
use obj_proto::{OBJECT_MAX, pieces_of, wire};
use uuid::Uuid;

use crate::failure::Failure;
use crate::handles::{Access, all_serve};
use crate::objects::{Served, object, payload};
use crate::target::{LEASE, lease_end, on_all, wall};

type Key = (Uuid, String, u64);

impl Served {
    /// Starts or extends the lease of an upload. The reclaimer must hear of it: it sets no timer while there is none.
    fn lease(&self, key: Key) {
        let old = self.target.leases.borrow_mut().insert(key, lease_end());
        if old.is_none() {
            self.target.work.notify_all();
        }
    }

    fn end_lease(&self, key: &Key) {
        self.target.leases.borrow_mut().remove(key);
        self.target.work.notify_all();
    }
}

pub(crate) async fn begin(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::PutBeginReq = request.decode()?;
    let (cont, _) = served.head(&req.cont, &req.name, Access::Write).await?;
    all_serve(&req.cont).await?;
    let version = served.store.begin(&cont, &req.name, wall()).await?;
    let opened = on_all("obj_upload_open", move |target| async move {
        Ok(target.store()?.open_version(&cont, version)?)
    });
    if let Some(failure) = opened.await.into_iter().find_map(Result::err) {
        served.store.abort_upload(&cont, &req.name, version).await?;
        served.target.work.notify_all();
        return Err(failure);
    }
    served.lease((cont, req.name, version));
    let lease = LEASE.as_nanos() as u64;
    Ok(Reply::message(&wire::PutBeginRep { version, lease }))
}

pub(crate) async fn piece(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::PutPieceReq = request.decode()?;
    if u64::from(req.piece) >= u64::from(pieces_of(OBJECT_MAX)) {
        let text = format!(
            "piece {}: an object has at most {}",
            req.piece,
            pieces_of(OBJECT_MAX)
        );
        return Err(Failure::new(Der::INVAL, text));
    }
    let cont = served
        .piece(&req.cont, (&req.name, req.piece), Access::Write)
        .await?;
    let payload = payload(&request, req.csums)?;
    let len = payload.len;
    served
        .store
        .put_piece(&cont, &req.name, req.version, req.piece, payload)
        .await?;
    served.stored(len);
    Ok(Reply::ok())
}

pub(crate) async fn commit(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::PutCommitReq = request.decode()?;
    let (cont, _) = served.head(&req.cont, &req.name, Access::Write).await?;
    served.store.check_upload(&cont, &req.name, req.version)?;
    let version = req.version;
    let (mut pieces, mut bytes) = (0, 0);
    let sealed = on_all("obj_upload_seal", move |target| async move {
        Ok(target.store()?.seal_version(&cont, version)?)
    });
    for part in sealed.await {
        let part = part?;
        pieces += part.0;
        bytes += part.1;
    }
    if pieces != pieces_of(req.size) || bytes != req.size {
        let text = format!(
            "'{}' was to have {} bytes in {} pieces, and {bytes} bytes in {pieces} pieces arrived",
            req.name,
            req.size,
            pieces_of(req.size)
        );
        return Err(Failure::new(Der::INVAL, text));
    }
    let shape = (req.size, pieces);
    let info = served
        .store
        .commit_upload(&cont, &req.name, version, shape, wall())
        .await?;
    served.end_lease(&(cont, req.name, version));
    Ok(Reply::message(&wire::PutCommitRep {
        object: Some(object(info)),
    }))
}

pub(crate) async fn abort(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::PutAbortReq = request.decode()?;
    let (cont, _) = served.head(&req.cont, &req.name, Access::Write).await?;
    served
        .store
        .abort_upload(&cont, &req.name, req.version)
        .await?;
    served.end_lease(&(cont, req.name, req.version));
    Ok(Reply::ok())
}

pub(crate) async fn renew(request: Request) -> Result<Reply, Failure> {
    let served = Served::new()?;
    let req: wire::PutRenewReq = request.decode()?;
    let (cont, _) = served.head(&req.cont, &req.name, Access::Write).await?;
    served.store.check_upload(&cont, &req.name, req.version)?;
    served.lease((cont, req.name, req.version));
    Ok(Reply::ok())
}
