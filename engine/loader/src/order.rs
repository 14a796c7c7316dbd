//! In which order modules come to life: needs first, ties by the configuration's order.

use std::collections::HashMap;

use crate::error::LoadError;
use crate::module::ModuleInfo;
use crate::search_path::closest;

/// Indexes of `modules` in start order, or everything that prevents one.
pub(crate) fn start_order(modules: &[&ModuleInfo]) -> Result<Vec<usize>, Vec<LoadError>> {
    let (providers, mut errors) = providers(modules);
    let mut needs: Vec<Vec<usize>> = Vec::with_capacity(modules.len());
    for module in modules {
        let mut of_module = Vec::new();
        for need in &module.needs {
            match providers.get(need.as_str()) {
                Some(&provider) => of_module.push(provider),
                None => errors.push(LoadError::UnknownNeed {
                    name: module.name.clone(),
                    need: need.clone(),
                    hint: closest(need, providers.keys().map(|k| (*k).to_owned())),
                }),
            }
        }
        needs.push(of_module);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut order = Vec::with_capacity(modules.len());
    let mut placed = vec![false; modules.len()];
    // Each round takes the first module, in the configuration's order, whose needs are all placed.
    while order.len() < modules.len() {
        let next = (0..modules.len()).find(|&i| !placed[i] && needs[i].iter().all(|&n| placed[n]));
        match next {
            Some(i) => {
                placed[i] = true;
                order.push(i);
            }
            None => {
                return Err(vec![LoadError::NeedCycle {
                    circle: circle(modules, &needs, &placed),
                }]);
            }
        }
    }
    Ok(order)
}

/// Capability -> module, a module's own name included.
fn providers<'a>(modules: &[&'a ModuleInfo]) -> (HashMap<&'a str, usize>, Vec<LoadError>) {
    let mut providers = HashMap::new();
    let mut errors = Vec::new();
    for (i, module) in modules.iter().enumerate() {
        for capability in std::iter::once(&module.name).chain(&module.provides) {
            if let Some(owner) = providers
                .insert(capability.as_str(), i)
                .filter(|&owner| owner != i)
            {
                errors.push(LoadError::DuplicateCapability {
                    name: module.name.clone(),
                    capability: capability.clone(),
                    owner: modules[owner].name.clone(),
                });
            }
        }
    }
    (providers, errors)
}

/// Follows unplaced needs until a module comes up twice. Every unplaced module has one, or it would have been placed.
fn circle(modules: &[&ModuleInfo], needs: &[Vec<usize>], placed: &[bool]) -> Vec<String> {
    let mut path: Vec<usize> = Vec::new();
    let mut at = placed.iter().position(|p| !p).unwrap_or(0);
    loop {
        if let Some(start) = path.iter().position(|&seen| seen == at) {
            path.drain(..start);
            path.push(at);
            return path.into_iter().map(|i| modules[i].name.clone()).collect();
        }
        path.push(at);
        match needs[at].iter().copied().find(|&n| !placed[n]) {
            Some(next) => at = next,
            None => return path.into_iter().map(|i| modules[i].name.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, needs: &[&str], provides: &[&str]) -> ModuleInfo {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        ModuleInfo {
            name: name.to_owned(),
            id: 0,
            version: 0,
            needs: owned(needs),
            provides: owned(provides),
            about: String::new(),
            drpc_ids: Vec::new(),
            proto_versions: Vec::new(),
        }
    }

    fn names(modules: &[ModuleInfo]) -> Result<Vec<&str>, Vec<LoadError>> {
        let order = start_order(&modules.iter().collect::<Vec<_>>())?;
        Ok(order
            .into_iter()
            .map(|i| modules[i].name.as_str())
            .collect())
    }

    #[test]
    fn without_needs_the_configurations_order_stands() {
        let modules = [
            module("c", &[], &[]),
            module("a", &[], &[]),
            module("b", &[], &[]),
        ];
        assert_eq!(names(&modules).unwrap(), ["c", "a", "b"]);
    }

    #[test]
    fn needs_come_first_and_ties_keep_the_configurations_order() {
        let modules = [
            module("mgmt", &["store"], &[]),
            module("x", &[], &[]),
            module("obj", &[], &["store"]),
            module("y", &["mgmt"], &[]),
        ];
        assert_eq!(names(&modules).unwrap(), ["x", "obj", "mgmt", "y"]);
    }

    #[test]
    fn a_circle_is_named_from_its_first_member() {
        let modules = [
            module("z", &["a"], &[]),
            module("a", &["b"], &[]),
            module("b", &["c"], &[]),
            module("c", &["a"], &[]),
        ];
        assert_eq!(
            names(&modules).unwrap_err()[0].to_string(),
            "modules need each other in a circle: a -> b -> c -> a"
        );
    }

    #[test]
    fn a_module_that_needs_itself_is_a_circle() {
        let modules = [module("a", &["b"], &[]), module("b", &["b"], &[])];
        assert!(
            matches!(&names(&modules).unwrap_err()[..], [LoadError::NeedCycle { circle }] if circle == &["b", "b"])
        );
    }

    #[test]
    fn unknown_needs_and_double_providers_are_all_reported() {
        let modules = [
            module("a", &["stor"], &[]),
            module("b", &[], &["store"]),
            module("c", &["nothing_like_it"], &["store"]),
        ];
        let errors: Vec<String> = names(&modules)
            .unwrap_err()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            errors,
            [
                "module `c`: capability `store` is already provided by `b`",
                "module `a` needs `stor`, which no loaded module provides (did you mean `store`?)",
                "module `c` needs `nothing_like_it`, which no loaded module provides",
            ]
        );
    }
}
