/* Adopt and prune, without any notion of time. docs/reliability.md says how to read it.

   One key that a restored Vault has forgotten, or that others made; two policies that find its secret in their records and
   adopt it; an operator who prunes it. Each stands still for as long as it likes before any step, or for ever. Each reads
   the ledger as it is, and writes it by check-and-set. */

#define NONE 15
byte reserved = NONE;           /* the policy that the document keys/KEYID names, or the key's own name does */
bit has[2];                     /* the policy's entry has the key as current */
bit abandoned[2];               /* … or as abandoned */
byte version[2];                /* of the entry, as far as it matters */
bit holds[2];                   /* the policy's record holds the secret */
bit deleted;

/* The facts of events.pml, of policy p. Claims, intents and retirements are those of rekeyd.pml. */
#include "events.pml"
#define CLAIMED   false
#define BEGUN     false
#define INTENDED  false
#define FORMER    false
#define TODELETE  false
#define CURRENT   (has[p])
#define ABANDONED (abandoned[p])
#define RESERVED  (reserved == p)
#ifdef MISTAKEN
#define MAY(event) skip
#else
#define MAY(event) assert(MAY_##event)
#endif

proctype Adopt(byte p) {
  byte v;
  (holds[p]);
#ifndef BUG_ADOPT_WITHOUT_THE_DOCUMENT
  if                            /* a write that allows no second one */
  :: d_step { reserved == NONE -> reserved = p }
  :: d_step { reserved == p }
  :: d_step { reserved != NONE && reserved != p } goto done
  fi;
#endif
  d_step { v = version[p] }
  if
#ifdef BUG_ADOPT_THE_ABANDONED
  :: true
#else
  :: !ABANDONED
  :: ABANDONED -> goto done
#endif
  fi;
  if
#ifdef BUG_ADOPT_WITHOUT_CAS
  :: d_step { true -> MAY(adopt); has[p] = 1; version[p]++ }
#else
  :: d_step { version[p] == v -> MAY(adopt); has[p] = 1; version[p]++ }
  :: d_step { version[p] != v }
#endif
  fi;
done: skip
}

/* The operator prunes for the policy that the key's name says: 0. */
proctype Prune() {
  byte v, p;
  d_step { v = version[0] }
  if
  :: has[0] || has[1] -> goto done              /* an entry names it */
  :: !has[0] && !has[1]
  fi;
  if
  :: holds[0] || holds[1] -> goto done          /* a record may hold its secret */
  :: !holds[0] && !holds[1]
  fi;
#ifndef BUG_PRUNE_WITHOUT_ABANDONING
  if
#ifdef BUG_PRUNE_WITHOUT_CAS
  :: d_step { true -> MAY(disown); abandoned[0] = 1; version[0]++ }
#else
  :: d_step { version[0] == v -> MAY(disown); abandoned[0] = 1; version[0]++ }
  :: d_step { version[0] != v } goto done
#endif
  fi;
#endif
  d_step { deleted = 1 }                        /* at last */
done: skip
}

/* The secret comes into a record at any time, by hand or by vault kv rollback. */
proctype Person() {
  if :: holds[0] = 1 :: skip fi;
  if :: holds[1] = 1 :: skip fi
}

proctype Judge() {
  do
  :: d_step {
       assert(!(has[0] && has[1]));
       assert(!(deleted && (has[0] || has[1])))
     }
  od
}

init {
  atomic {
#ifdef PRUNED
    reserved = 0;                               /* its name is one that rekeyd gave: it is policy 0's */
    run Prune();
#endif
    run Adopt(0); run Adopt(1); run Person(); run Judge()
  }
}
