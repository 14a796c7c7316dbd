//! Properties of pools, who is connected to them, and their containers: DAOS's requests, answered by the object module.

use crate::pools::{PROP_LABEL, obj, parsed, uuid_text};
use crate::proto::mgmt::{
    ListContReq, ListContResp, PoolEvictReq, PoolEvictResp, PoolGetPropReq, PoolGetPropResp,
    PoolProperty, PoolSetPropReq, PoolSetPropResp, list_cont_resp, pool_property::Value,
};
use module_sdk::Der;
use obj_proto::{Op, wire};

/// `POOL_SET_PROP`. The label is what can be changed; another property refuses the whole request.
pub(crate) async fn set(request: PoolSetPropReq) -> PoolSetPropResp {
    let set = async {
        let pool = parsed(&request.id)?.to_string();
        let label = label(&request.properties)?;
        obj::<wire::Empty>(Op::PoolSetProp, &wire::PoolSetPropReq { pool, label }).await
    };
    PoolSetPropResp {
        status: set.await.map_or_else(Der::neg, |_| 0),
    }
}

fn label(properties: &[PoolProperty]) -> Result<String, Der> {
    match properties {
        [
            PoolProperty {
                number: PROP_LABEL,
                value: Some(Value::Strval(label)),
            },
        ] => Ok(label.clone()),
        [] => Err(Der::INVAL),
        all if all.iter().all(|property| property.number == PROP_LABEL) => Err(Der::INVAL),
        _ => Err(Der::NOTSUPPORTED),
    }
}

/// `POOL_GET_PROP`.
pub(crate) async fn get(request: PoolGetPropReq) -> PoolGetPropResp {
    let got = async {
        let pool = parsed(&request.id)?.to_string();
        if request.properties.iter().any(|p| p.number != PROP_LABEL) {
            return Err(Der::NOTSUPPORTED);
        }
        let rep: wire::PoolQueryRep = obj(Op::PoolQuery, &wire::PoolQueryReq { pool }).await?;
        Ok(rep.pool.unwrap_or_default().label)
    };
    match got.await {
        Ok(label) => PoolGetPropResp {
            status: 0,
            properties: vec![PoolProperty {
                number: PROP_LABEL,
                value: Some(Value::Strval(label)),
            }],
        },
        Err(der) => PoolGetPropResp {
            status: der.neg(),
            properties: vec![],
        },
    }
}

/// `POOL_EVICT`. All who are connected; a choice by handle or machine is not supported. As the first step of a destruction without force it only
/// says whether somebody is (`BUSY`).
pub(crate) async fn evict(request: PoolEvictReq) -> PoolEvictResp {
    let evicted = async {
        let pool = parsed(&request.id)?.to_string();
        if !request.handles.is_empty() || !request.machine.is_empty() {
            return Err(Der::NOTSUPPORTED);
        }
        if request.destroy && !request.force_destroy {
            let asked = wire::PoolQueryReq { pool };
            let rep: wire::PoolQueryRep = obj(Op::PoolQuery, &asked).await?;
            return if rep.connections == 0 {
                Ok(0)
            } else {
                Err(Der::BUSY)
            };
        }
        let rep: wire::PoolEvictRep = obj(Op::PoolEvict, &wire::PoolEvictReq { pool }).await?;
        Ok(rep.count)
    };
    let (status, count) = match evicted.await {
        Ok(count) => (0, i32::try_from(count).unwrap_or(i32::MAX)),
        Err(der) => (der.neg(), 0),
    };
    PoolEvictResp { status, count }
}

/// `LIST_CONTAINERS`.
pub(crate) async fn containers(request: ListContReq) -> ListContResp {
    let listed = async {
        let pool = parsed(&request.id)?.to_string();
        obj::<wire::ContListRep>(Op::ContList, &wire::ContListReq { pool }).await
    };
    let cont = |cont: wire::ContInfo| list_cont_resp::Cont {
        uuid: uuid_text(&cont.uuid),
    };
    match listed.await {
        Ok(rep) => ListContResp {
            status: 0,
            containers: rep.conts.into_iter().map(cont).collect(),
        },
        Err(der) => ListContResp {
            status: der.neg(),
            containers: vec![],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_is_what_can_be_set() {
        let property = |number, value| PoolProperty {
            number,
            value: Some(value),
        };
        let named = property(PROP_LABEL, Value::Strval("tank".into()));
        assert_eq!(label(std::slice::from_ref(&named)), Ok("tank".into()));
        assert_eq!(label(&[]), Err(Der::INVAL));
        assert_eq!(label(&[named.clone(), named.clone()]), Err(Der::INVAL));
        assert_eq!(
            label(&[property(PROP_LABEL, Value::Numval(1))]),
            Err(Der::INVAL)
        );
        let other = property(4, Value::Numval(1));
        assert_eq!(label(std::slice::from_ref(&other)), Err(Der::NOTSUPPORTED));
        assert_eq!(label(&[named, other]), Err(Der::NOTSUPPORTED));
    }
}
