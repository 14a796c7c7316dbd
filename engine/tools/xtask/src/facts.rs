//! What the rules want to know about one Rust file, as plain data.

use proc_macro2::{TokenStream, TokenTree};

use syn::visit::{self, Visit};

#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) functions: Vec<Function>,
    pub(crate) modules: Vec<ModuleDecl>,
    pub(crate) opt_outs: Vec<OptOut>,
    pub(crate) calls: Vec<BannedCall>,
    /// Files named by `include!("...")`.
    pub(crate) includes: Vec<String>,
    pub(crate) unsafe_sites: UnsafeSites,
}

#[derive(Debug)]
pub(crate) struct Function {
    /// With the type or trait around it: `Ring::push`.
    pub(crate) name: String,
    pub(crate) line: usize,
    /// From `fn` to the closing brace, both counted; attributes and docs are not.
    pub(crate) lines: usize,
}

/// `mod x;`, or an inline `mod x { ... }`.
#[derive(Debug)]
pub(crate) struct ModuleDecl {
    /// Inline modules around it, then its own name.
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
    pub(crate) inline: bool,
    /// `#[path = "..."]`.
    pub(crate) file: Option<String>,
}

/// `#[allow(...)]` or `#[expect(...)]`.
#[derive(Debug)]
pub(crate) struct OptOut {
    pub(crate) lints: Vec<String>,
    pub(crate) reason: Option<String>,
    pub(crate) line: usize,
    /// `#![...]` at the top of a file or module.
    pub(crate) inner: bool,
}

/// A macro or attribute that must not be on main.
#[derive(Debug)]
pub(crate) struct BannedCall {
    pub(crate) what: &'static str,
    pub(crate) line: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnsafeSites {
    pub(crate) blocks: usize,
    pub(crate) functions: usize,
    pub(crate) impls: usize,
    /// `unsafe` inside macro definitions and calls, which are not parsed further.
    pub(crate) in_macros: usize,
}

impl UnsafeSites {
    pub(crate) fn sum(self) -> usize {
        self.blocks + self.functions + self.impls + self.in_macros
    }
}

impl Facts {
    /// Reads a file; the error is the parser's.
    pub(crate) fn read(text: &str) -> Result<Facts, String> {
        let file = syn::parse_file(text).map_err(|error| {
            let at = error.span().start();
            format!("line {}: {error}", at.line)
        })?;
        let mut reader = Reader::default();
        reader.visit_file(&file);
        Ok(reader.facts)
    }
}

#[derive(Default)]
struct Reader {
    facts: Facts,
    /// Inline modules that we are in.
    modules: Vec<String>,
    /// Type or trait whose items we are in.
    owner: Option<String>,
}

impl Reader {
    fn function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let name = match &self.owner {
            Some(owner) => format!("{owner}::{}", signature.ident),
            None => signature.ident.to_string(),
        };
        let first = signature.fn_token.span.start().line;
        let last = body.brace_token.span.close().end().line;
        self.facts.functions.push(Function {
            name,
            line: first,
            lines: last + 1 - first,
        });
        self.facts.unsafe_sites.functions += usize::from(signature.unsafety.is_some());
    }

    fn inside(&mut self, owner: Option<String>, walk: impl FnOnce(&mut Reader)) {
        let before = std::mem::replace(&mut self.owner, owner);
        walk(self);
        self.owner = before;
    }

    fn banned(&mut self, what: &'static str, line: usize) {
        self.facts.calls.push(BannedCall { what, line });
    }

    fn opt_out(&mut self, attribute: &syn::Attribute, tokens: TokenStream) {
        let mut opt_out = OptOut {
            lints: Vec::new(),
            reason: None,
            line: attribute.pound_token.span.start().line,
            inner: matches!(attribute.style, syn::AttrStyle::Inner(_)),
        };
        for part in split_at_commas(tokens) {
            let text = part
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("");
            match text.strip_prefix("reason=") {
                Some(reason) => opt_out.reason = Some(reason.trim_matches('"').to_owned()),
                None => opt_out.lints.push(text),
            }
        }
        self.facts.opt_outs.push(opt_out);
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        self.inside(None, |reader| visit::visit_item_fn(reader, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.facts.unsafe_sites.impls += usize::from(item.unsafety.is_some());
        let owner = match &*item.self_ty {
            syn::Type::Path(path) => path
                .path
                .segments
                .last()
                .map(|segment| segment.ident.to_string()),
            _ => Some("_".into()),
        };
        self.inside(owner, |reader| visit::visit_item_impl(reader, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.inside(Some(item.ident.to_string()), |reader| {
            visit::visit_item_trait(reader, item)
        });
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        let mut path = self.modules.clone();
        path.push(name.clone());
        let file = item.attrs.iter().find_map(path_attribute);
        let line = item.ident.span().start().line;
        self.facts.modules.push(ModuleDecl {
            path,
            line,
            inline: item.content.is_some(),
            file,
        });
        self.modules.push(name);
        self.inside(None, |reader| visit::visit_item_mod(reader, item));
        self.modules.pop();
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.facts.unsafe_sites.blocks += 1;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call
            .path
            .segments
            .last()
            .map(|segment| segment.ident.to_string())
            .unwrap_or_default();
        let line = call.bang_token.span.start().line;
        match name.as_str() {
            "todo" => self.banned("todo!", line),
            "unimplemented" => self.banned("unimplemented!", line),
            "dbg" => self.banned("dbg!", line),
            "include" => self.facts.includes.extend(only_string(call.tokens.clone())),
            _ => {}
        }
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let path = attribute.path();
        if path.is_ident("ignore") {
            self.banned("#[ignore]", attribute.pound_token.span.start().line);
        }
        if let syn::Meta::List(list) = &attribute.meta {
            if path.is_ident("allow") || path.is_ident("expect") {
                self.opt_out(attribute, list.tokens.clone());
            } else if path.is_ident("cfg_attr") {
                self.conditional(attribute, list.tokens.clone());
            }
        }
        visit::visit_attribute(self, attribute);
    }
}

impl Reader {
    /// `cfg_attr(test, allow(...))`, `cfg_attr(miri, ignore)`.
    fn conditional(&mut self, attribute: &syn::Attribute, tokens: TokenStream) {
        for part in split_at_commas(tokens).into_iter().skip(1) {
            match part.as_slice() {
                [TokenTree::Ident(name), TokenTree::Group(group)]
                    if name == "allow" || name == "expect" =>
                {
                    self.opt_out(attribute, group.stream());
                }
                _ => {}
            }
        }
    }

    /// Inside macros there is no syntax tree: words are looked for.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(word) if word == "unsafe" => {
                    self.facts.unsafe_sites.in_macros += 1
                }
                TokenTree::Ident(word) if word == "todo" || word == "unimplemented" => {
                    let is_call = matches!(tokens.get(at + 1), Some(TokenTree::Punct(p)) if p.as_char() == '!');
                    if is_call {
                        let what = if word == "todo" {
                            "todo!"
                        } else {
                            "unimplemented!"
                        };
                        self.banned(what, word.span().start().line);
                    }
                }
                _ => {}
            }
        }
    }
}

fn split_at_commas(tokens: TokenStream) -> Vec<Vec<TokenTree>> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_comma =
        |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
    tokens
        .split(is_comma)
        .filter(|part| !part.is_empty())
        .map(<[TokenTree]>::to_vec)
        .collect()
}

fn path_attribute(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else {
        return None;
    };
    let syn::Expr::Lit(literal) = &pair.value else {
        return None;
    };
    match &literal.lit {
        syn::Lit::Str(text) if pair.path.is_ident("path") => Some(text.value()),
        _ => None,
    }
}

/// The string, if the tokens are one string literal.
fn only_string(tokens: TokenStream) -> Option<String> {
    syn::parse2::<syn::LitStr>(tokens)
        .ok()
        .map(|text| text.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let text = "/// Doc.\n#[inline]\nfn a() {\n}\nimpl B {\n    pub fn c(\n        &self,\n    ) {}\n}\n";
        let facts = Facts::read(text).unwrap();
        let measured: Vec<_> = facts
            .functions
            .iter()
            .map(|f| (f.name.as_str(), f.line, f.lines))
            .collect();
        assert_eq!(measured, [("a", 3, 2), ("B::c", 6, 3)]);
    }

    #[test]
    fn opt_outs_are_read_with_their_reasons() {
        let text = "#![allow(unsafe_code, reason = \"maps memory\")]\n#[expect(dead_code)]\nfn a() {}\n#[cfg_attr(test, allow(unused))]\nfn b() {}\n";
        let facts = Facts::read(text).unwrap();
        let seen: Vec<_> = facts
            .opt_outs
            .iter()
            .map(|o| (o.lints.join(" "), o.reason.is_some(), o.inner, o.line))
            .collect();
        assert_eq!(
            seen,
            [
                ("unsafe_code".into(), true, true, 1),
                ("dead_code".into(), false, false, 2),
                ("unused".into(), false, false, 4)
            ]
        );
    }

    #[test]
    fn unsafe_is_counted_by_kind() {
        let text = "unsafe fn a() { unsafe { b() } }\nunsafe impl Send for C {}\nmacro_rules! d { () => { unsafe { e() } } }\n";
        let sites = Facts::read(text).unwrap().unsafe_sites;
        assert_eq!(
            sites,
            UnsafeSites {
                blocks: 1,
                functions: 1,
                impls: 1,
                in_macros: 1
            }
        );
    }

    #[test]
    fn stubs_are_found_in_code_and_in_macros() {
        let text = "fn a() { todo!() }\n#[test]\n#[ignore]\nfn b() {}\nproptest! { fn c() { unimplemented!(); } }\n// todo!()\nconst D: &str = \"todo!()\";\n";
        let calls: Vec<_> = Facts::read(text)
            .unwrap()
            .calls
            .iter()
            .map(|call| (call.what, call.line))
            .collect();
        assert_eq!(
            calls,
            [("todo!", 1), ("#[ignore]", 3), ("unimplemented!", 5)]
        );
    }

    #[test]
    fn modules_know_what_is_around_them() {
        let text = "mod a;\nmod b { mod c; }\n#[path = \"x/y.rs\"]\nmod d;\n";
        let modules = Facts::read(text).unwrap().modules;
        let seen: Vec<_> = modules
            .iter()
            .map(|m| (m.path.join("::"), m.inline, m.file.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("a".into(), false, None),
                ("b".into(), true, None),
                ("b::c".into(), false, None),
                ("d".into(), false, Some("x/y.rs"))
            ]
        );
    }
}
