//! A schema as a tree of rules in the order in which AJV 6 judges, with every reference resolved.
//!
//! The crate `jsonschema` says whether an event is valid. This tree says what is wrong with one that is not, which
//! fields a schema declares, and which defaults it has.

use std::collections::{HashMap, VecDeque};

use jsonschema::{Draft, Validator};
use serde_json::{Number, Value};

use super::formats;
use super::refs::{Index, Place, resolve};
use super::rules::rules_of;
use super::source::Source;

/// Schemas inside a schema, those it refers to included.
const NODES_MAX: usize = 20_000;

/// The number of a node in its tree.
pub(super) type NodeId = usize;

#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
}

/// One schema within the schema.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Where it stands, as AJV writes it: `#/properties/meta`.
    pub(super) path: String,
    pub(super) default: Option<Value>,
    pub(super) rules: Vec<Rule>,
}

/// What one keyword, or a few that belong together, ask for.
#[derive(Debug)]
pub(super) enum Rule {
    Never,
    Type(Vec<JsonType>),
    Bound {
        keyword: &'static str,
        comparison: &'static str,
        limit: Number,
    },
    MultipleOf {
        of: Value,
        check: Validator,
    },
    Count {
        keyword: &'static str,
        counted: Counted,
        at_most: bool,
        limit: u64,
    },
    Pattern {
        pattern: String,
        check: Validator,
    },
    Format {
        format: String,
        check: formats::Check,
    },
    Items(Items),
    Contains {
        node: NodeId,
        least: u64,
        most: Option<u64>,
    },
    /// With the types of the items, where they are all scalar.
    UniqueItems(Option<Vec<JsonType>>),
    Required(Vec<String>),
    Dependencies {
        keyword: &'static str,
        of: Vec<(String, Dependency)>,
    },
    PropertyNames(NodeId),
    Properties(Properties),
    Reference(NodeId),
    Const(Value),
    Enum(Value),
    Not(NodeId),
    AnyOf(Vec<NodeId>),
    OneOf(Vec<NodeId>),
    AllOf(Vec<NodeId>),
    If {
        condition: NodeId,
        then: Option<NodeId>,
        otherwise: Option<NodeId>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonType {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Characters,
    Items,
    Properties,
}

#[derive(Debug)]
pub(super) struct Items {
    pub(super) tuple: Vec<NodeId>,
    pub(super) rest: Rest,
    /// The keyword that speaks of what follows the tuple.
    pub(super) rest_keyword: &'static str,
}

/// What is said of the properties or items that are not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Open,
    Closed,
    Schema(NodeId),
}

#[derive(Debug)]
pub(super) enum Dependency {
    Names(Vec<String>),
    Schema(NodeId),
}

#[derive(Debug)]
pub(super) struct Properties {
    pub(super) known: Vec<Property>,
    pub(super) patterns: Vec<(Validator, NodeId)>,
    pub(super) rest: Rest,
}

#[derive(Debug)]
pub(super) struct Property {
    pub(super) name: String,
    pub(super) node: NodeId,
    /// AJV 6 misses a required property that has a schema where the property's turn comes.
    pub(super) required: bool,
}

/// Why there is no tree.
#[derive(Debug)]
pub(super) enum Fault {
    Refused(String),
    /// What a base gave is not a schema at all, but a page that asks for a login, say. Ours.
    Junk(&'static str),
    /// A schema that is referred to, and has to be loaded first: its absolute URI.
    Missing(String),
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Refused(why)
    }
}

impl Tree {
    /// The first source is the schema, with the URI that it was asked for by; the others are those it refers to.
    pub(super) fn grow(sources: &[(String, Source)]) -> Result<Self, Fault> {
        let index = Index::of(sources);
        let mut grower = Grower { sources, index, known: HashMap::new(), nodes: Vec::new(), pending: VecDeque::new() };
        grower.node((0, String::new()))?;
        while let Some((id, place)) = grower.pending.pop_front() {
            let node = grower.grown(&place)?;
            grower.nodes[id] = node;
        }
        Ok(Self { nodes: grower.nodes })
    }

    pub(super) fn root(&self) -> NodeId {
        0
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// Whether a part of it may be asked about one part of an event more than once. Then the time that an event takes may
    /// double with every level of it.
    pub(super) fn has_references(&self) -> bool {
        self.nodes.iter().any(|node| node.rules.iter().any(|rule| matches!(rule, Rule::Reference(_))))
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}

/// Grows a tree breadth first: neither deep schemas nor long chains of references need a deep stack.
pub(super) struct Grower<'a> {
    sources: &'a [(String, Source)],
    index: Index,
    known: HashMap<Place, NodeId>,
    nodes: Vec<Node>,
    pending: VecDeque<(NodeId, Place)>,
}

impl<'a> Grower<'a> {
    /// The node of a place, to be grown later if it is new.
    fn node(&mut self, place: Place) -> Result<NodeId, Fault> {
        if let Some(&id) = self.known.get(&place) {
            return Ok(id);
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(format!("the schema has more than {NODES_MAX} parts").into());
        }
        let id = self.nodes.len();
        self.nodes.push(Node::default());
        self.known.insert(place.clone(), id);
        self.pending.push_back((id, place));
        Ok(id)
    }

    /// The node of a schema below a place.
    pub(super) fn below(&mut self, place: &Place, pointer: &str) -> Result<NodeId, Fault> {
        self.node((place.0, format!("{}{pointer}", place.1)))
    }

    pub(super) fn draft(&self, place: &Place) -> Draft {
        self.sources[place.0].1.draft
    }

    pub(super) fn value(&self, place: &Place) -> Option<&'a Value> {
        self.sources[place.0].1.value.pointer(&place.1)
    }

    /// Where the schema stands, as AJV writes it.
    pub(super) fn path(&self, place: &Place) -> String {
        let document = if place.0 == 0 { "" } else { self.sources[place.0].0.as_str() };
        let steps: Vec<String> = place.1.split('/').map(fragment).collect();
        format!("{document}#{}", steps.join("/"))
    }

    /// What a reference at a place means. `None`: a meta-schema, which is in no base.
    pub(super) fn referred(&mut self, place: &Place, reference: &str) -> Result<Option<NodeId>, Fault> {
        let base = self.index.base(place).to_owned();
        let absolute = resolve(&base, reference);
        let unresolved = || format!("can't resolve reference {reference} from id {base}");
        if let Some(target) = self.index.find(&absolute) {
            return match self.value(&target) {
                Some(_) => self.node(target).map(Some),
                None => Err(unresolved().into()),
            };
        }
        let document = absolute.split('#').next().unwrap_or_default();
        if document.starts_with("http://json-schema.org/") || document.starts_with("https://json-schema.org/") {
            return Ok(None);
        }
        let is_here = self.index.find(document).is_some() || document.is_empty();
        if is_here { Err(unresolved().into()) } else { Err(Fault::Missing(document.to_owned())) }
    }

    fn grown(&mut self, place: &Place) -> Result<Node, Fault> {
        let path = self.path(place);
        match self.value(place) {
            Some(Value::Object(object)) => {
                let rules = rules_of(self, place, object)?;
                let default = object.get("default").filter(|_| !has_only_reference(self.draft(place), object));
                Ok(Node { path, default: default.cloned(), rules })
            }
            Some(Value::Bool(false)) => Ok(Node { path, default: None, rules: vec![Rule::Never] }),
            _ => Ok(Node { path, ..Node::default() }),
        }
    }
}

/// Whether a reference hides whatever stands beside it.
pub(super) fn has_only_reference(draft: Draft, object: &serde_json::Map<String, Value>) -> bool {
    matches!(draft, Draft::Draft6 | Draft::Draft7) && object.get("$ref").is_some_and(Value::is_string)
}

/// A step of a pointer as it stands in a URI's fragment: JavaScript's `encodeURIComponent`.
pub(super) fn fragment(step: &str) -> String {
    const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'!')
        .remove(b'~')
        .remove(b'*')
        .remove(b'\'')
        .remove(b'(')
        .remove(b')');
    percent_encoding::utf8_percent_encode(step, ESCAPED).to_string()
}

impl JsonType {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "string" => Self::String,
            "array" => Self::Array,
            "object" => Self::Object,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }

    pub(super) fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Null, Value::Null)
            | (Self::Boolean, Value::Bool(_))
            | (Self::Number, Value::Number(_))
            | (Self::String, Value::String(_))
            | (Self::Array, Value::Array(_))
            | (Self::Object, Value::Object(_)) => true,
            (Self::Integer, Value::Number(number)) => {
                !number.is_f64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            _ => false,
        }
    }
}
