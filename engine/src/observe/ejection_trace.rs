//! Being told when the kernel begins to eject a scheduler: by the tracepoint `sched_ext_exit`, which kernels have from v7.3 on
//! (`bpf/tools/exits.bpf.c`). Without it a caller has to look from time to time.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use std::time::Instant;

use libbpf_rs::Link;
use libbpf_rs::MapCore;
use libbpf_rs::Object;
use libbpf_rs::RingBuffer;
use libbpf_rs::RingBufferBuilder;

use crate::error::Error;
use crate::error::Result;
use crate::error::Trying;
use crate::kernel::libbpf_log;
use crate::kernel::object;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exits.bpf.o"));
const PROGRAM: &str = "exits_wake";
const MAP: &str = "exits";
/// The tracepoint's name.
pub const TRACEPOINT: &str = "sched_ext_exit";

/// See the module. Nothing stays in the kernel when it is dropped.
pub struct Exits(Option<Attached>);

struct Attached {
    // Dropped first: it reads a map of the object.
    ring: RingBuffer<'static>,
    told: Rc<Cell<bool>>,
    _link: Link,
    _object: Object,
}

impl std::fmt::Debug for Exits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exits").field("by_tracepoint", &self.by_tracepoint()).finish()
    }
}

impl Exits {
    /// Attach to the tracepoint, where this kernel has it.
    pub fn attach() -> Exits {
        let attached = Attached::attach();
        if let Err(e) = &attached {
            log::debug!("not told of ejections by the tracepoint {TRACEPOINT}: {e}");
        }
        Exits(attached.ok())
    }

    /// Does the kernel tell, or is a caller to look?
    pub fn by_tracepoint(&self) -> bool {
        self.0.is_some()
    }

    /// Wait for the kernel to tell, but not for longer. Where it does not tell, this waits as long.
    pub fn wait(&self, at_most: Duration) {
        let Some(attached) = &self.0 else { return std::thread::sleep(at_most) };
        let begin = Instant::now();
        // A signal ends it early, which is as well: it may be one that ends the watch.
        if attached.ring.poll(at_most).is_err() {
            std::thread::sleep(at_most.saturating_sub(begin.elapsed()).min(Duration::from_millis(1)));
        }
    }

    /// Has the kernel told of an exit since the last [`Exits::take`]?
    pub fn is_told(&self) -> bool {
        let Some(attached) = &self.0 else { return false };
        // What has come since the last wait.
        let _ = attached.ring.consume();
        attached.told.get()
    }

    /// As [`Exits::is_told`], and forget it.
    pub fn take(&self) -> bool {
        let told = self.is_told();
        if let Some(attached) = &self.0 {
            attached.told.set(false);
        }
        told
    }
}

impl Attached {
    fn attach() -> Result<Attached> {
        let object = object::load(object::open_tool(OBJECT)?, "a tool")?;
        let program = object.progs_mut().find(|p| p.name() == PROGRAM);
        let program = program.ok_or_else(|| Error::BadBuild { name: PROGRAM.to_string() })?;
        let (link, _) = libbpf_log::captured(|| program.attach());
        let link = link.trying(format!("cannot attach to the tracepoint {TRACEPOINT}"))?;
        let told = Rc::new(Cell::new(false));
        let ring = {
            let map = object.maps().find(|m| m.name() == MAP);
            let map = map.ok_or_else(|| Error::BadBuild { name: MAP.to_string() })?;
            let tell = told.clone();
            let mut builder = RingBufferBuilder::new();
            let add = builder.add(&map, move |_| {
                tell.set(true);
                0
            });
            add.trying("cannot read the ring of exits")?;
            builder.build().trying("cannot read the ring of exits")?
        };
        Ok(Attached { ring, told, _link: link, _object: object })
    }
}
