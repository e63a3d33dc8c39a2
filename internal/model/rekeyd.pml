/* The rotation protocol of rekeyd, without any notion of time. docs/reliability.md says how to read and run it.

   One policy; two processes, each a daemon and every command at once; a network that delivers calls late; a person who
   writes the record. A process may stand still for ever before any step and then take it: Spin just does not schedule
   it. It may die before any call that changes something, with that call left to the network, and then begins anew
   without memory. A claim may be taken over at any moment.

   Of a version number only one fact matters: whether the version that a process has in hand is still the newest one
   (fresh: of the ledger entry; rfresh: of the record). Check-and-set succeeds where it is.

   A ledger write that arrives after its process died needs no message: it is refused unless nothing was written since,
   and then all is as if the process had stood still, written, and died. */

#define N 3                     /* keys; key 0 is there from the start */
#define NONE 15
#ifndef ROTATIONS
#define ROTATIONS 0
#endif
#ifndef ROLLBACKS
#define ROLLBACKS 0
#endif
#ifndef REVOKES
#define REVOKES 0
#endif
#ifndef PERSON
#define PERSON 0
#endif
#ifndef LATE
#define LATE 1                  /* calls that the network holds at once */
#endif

/* The ledger entry. */
byte holder;                    /* 0: no claim; 1, 2: a process; 3: one that died */
byte intent = NONE;             /* key that is being made or put back */
bit back;                       /* the intent is that of a rollback */
byte cur;
byte ret[N];                    /* 0; 1: overlap; 2: quarantine */
bit revoked[N];
bit abandoned[N];
/* Notes of calls. 0: none; 1: one call; 2: several, merged: no answer settles them; 3: one and merged ones. */
byte toDisable[N];
byte toEnable[N];
byte toDelete[N];

/* The record, and the keys at ElevenLabs. */
byte rkey;                      /* key in the record */
bit published[N];               /* a version of the record holds it */
bit waived;                     /* a person put a key there which they could see to be on its way out */
byte key[N];                    /* 0: not made; 1: enabled; 2: disabled; 3: deleted */

bit fresh[3];
bit rfresh[3];
byte late[2];                   /* call * 16 + key; 0: none */
byte rotations, rollbacks, revokes, persons;

#define CREATE  1
#define ENABLE  2
#define DISABLE 3
#define DELETE  4
#define PUBLISH 5

#define NOTE(x)   x = (x -> 3 : 1)
#define SETTLE(x) x = x & 2
#define IDLE      (holder == 0 && intent == NONE)
#define FRESH     fresh[me]

/* The facts of events.pml, of key k and process me. */
#include "events.pml"
#define CLAIMED   (holder != 0)
#define MINE      (holder == me)
#define BEGUN     (intent != NONE)
#define INTENDED  (intent == k)
#define UNUSED    (key[k] == 0 && !abandoned[k])
#define MADE      (key[k] == 1 || key[k] == 2)
#define GONE      (key[k] == 3)
#define CURRENT   (cur == k)
#define FORMER    (ret[k] != 0)
#define REVOKED   (revoked[k])
#define ABANDONED (abandoned[k])
#define PUBLISHED (published[k])
#define TODISABLE (toDisable[k] != 0)
#define TOENABLE  (toEnable[k] != 0)
#define TODELETE  (toDelete[k] != 0)
#define SAME      true            /* a fence writes what it read */
#ifdef MISTAKEN                 /* a mistake is to be found by what comes of it */
#define MAY(event) skip
#else
#define MAY(event) assert(MAY_##event)
#endif

/* Mistakes, each of which the search must find. TODAY is the protocol before it was mended. */
#ifdef TODAY
#define BUG_NO_RENEWAL_AFTER_LOOK
#define BUG_NO_RENEWAL_BEFORE_RETRY
#define BUG_SUCCESS_SETTLES_ALL
#define BUG_REFUSAL_SETTLES_ALL
#define BUG_UNDO_SETTLES_DISABLE
#define BUG_ENABLE_NOT_NOTED
#define BUG_DELETE_NOT_NOTED
#define BUG_ROLLBACK_NOT_ASKED_AGAIN
#define BUG_NO_SECOND_LOOK
#define BUG_FOLLOW_ENABLED_ONLY
#endif
#ifdef BUG_CLAIM_WITHOUT_CAS
#undef FRESH
#define FRESH     true
#endif
#ifdef BUG_SUCCESS_SETTLES_ALL
#define SETTLEDONE(x) x = 0
#else
#define SETTLEDONE(x) SETTLE(x)
#endif
#ifdef BUG_REFUSAL_SETTLES_ALL
#define SETTLEUNSENT(x) x = 0
#else
#define SETTLEUNSENT(x) SETTLE(x)
#endif
#ifdef BUG_UNDO_SETTLES_DISABLE
#define UNDONE(i) SETTLE(toEnable[i]); toDisable[i] = 0
#else
#define UNDONE(i) SETTLE(toEnable[i])
#endif
#ifdef BUG_DISABLE_NOT_NOTED
#define NOTEDISABLE(i)
#else
#define NOTEDISABLE(i) NOTE(toDisable[i])
#endif
#ifdef BUG_ENABLE_NOT_NOTED
#define NOTEENABLE(i)
#else
#define NOTEENABLE(i) NOTE(toEnable[i])
#endif
#ifdef BUG_DELETE_NOT_NOTED
#define NOTEDELETE(i)
#else
#define NOTEDELETE(i) NOTE(toDelete[i])
#endif
#ifdef BUG_ROLLBACK_OVER_DELETE
#define MAYCOMEBACK(i) (ret[i] != 0 && !revoked[i])
#else
#define MAYCOMEBACK(i) (ret[i] != 0 && !revoked[i] && toDelete[i] == 0)
#endif
#ifdef BUG_ROLLBACK_NOT_ASKED_AGAIN
#define STILLMAYCOMEBACK(i) (ret[i] != 0)
#else
#define STILLMAYCOMEBACK(i) MAYCOMEBACK(i)
#endif
#ifdef BUG_LATE_ENABLE_STAYS
#define AGAIN(r, k, i) false
#else
#define AGAIN(r, k, i) (r[i] == 2 && k[i] == 1 && toEnable[i] != 0)
#endif
#ifdef BUG_FOLLOW_ENABLED_ONLY
#define FOLLOWED(i) (toDelete[i] == 0 && key[i] == 1)
#else
#ifdef BUG_FOLLOW_OVER_DELETE
#define FOLLOWED(i) (key[i] == 1 || toDisable[i] != 0)
#else
#define FOLLOWED(i) (toDelete[i] == 0 && (key[i] == 1 || toDisable[i] != 0))
#endif
#endif
#ifdef BUG_SWEEP_WITHOUT_EVIDENCE
#define SWEPT(i) (cur != i && ret[i] == 0)
#else
#define SWEPT(i) abandoned[i]
#endif
#ifdef BUG_FORGET_ABANDONED
#define ABANDON
#else
#define ABANDON abandoned[k] = 1;
#endif
#ifdef BUG_BELIEVE_THE_LISTING
#define ABSENT
#else
#define ABSENT ABANDON
#endif
#ifdef BUG_NO_ROLL_FORWARD
#define WASPUBLISHED(i) false
#else
#define WASPUBLISHED(i) published[i]
#endif

inline wrote() { fresh[1] = 0; fresh[2] = 0; fresh[me] = 1 }

/* The record has a new version: writes from an earlier version are refused from now on. */
inline rewrote() {
  rfresh[1] = 0; rfresh[2] = 0;
  if :: (late[0] >> 4) == PUBLISH -> late[0] = 0 :: else fi;
  if :: (late[1] >> 4) == PUBLISH -> late[1] = 0 :: else fi
}

inline apply(c, k) {
  if
  :: c == CREATE  && key[k] == 0 -> MAY(create); key[k] = 1
  :: c == ENABLE  && key[k] == 2 -> MAY(enable); key[k] = 1
  :: c == DISABLE && key[k] == 1 -> MAY(disable); key[k] = 2
  :: c == DELETE  && MADE -> MAY(delete); key[k] = 3
  :: c == PUBLISH -> MAY(publish); rkey = k; published[k] = 1; waived = 0; rewrote()
  :: else
  fi
}

inline forget() { k = 0; c = 0; saw = 0; rb = 0; rev = 0; ok = 0; what = 0; fresh[me] = 0; rfresh[me] = 0 }
inline die() { if :: holder == me -> holder = 3 :: else fi; forget() }

/* The network has the call, and delivers it at any time or never; the process dies, or goes on without an answer. */
#define ROOM (late[0] == 0 || (LATE > 1 && late[1] == 0))
#define POST(call) if :: late[0] == 0 -> late[0] = (call) * 16 + k :: else -> late[1] = (call) * 16 + k fi
#define LOST(may, call, then) \
  :: d_step { may && ROOM -> POST(call); die() } goto start; \
  :: d_step { may && ROOM -> POST(call) } goto then; \
  :: d_step { die() } goto start; \
  :: goto then
#define DIE :: d_step { die() } goto start
/* A ledger write: refused where the entry moved. */
#define WRITE(todo) if :: d_step { FRESH -> todo; wrote(); forget() } :: d_step { !FRESH -> forget() } DIE fi; goto start

#define RETIRE(i) \
  :: d_step { IDLE && (ret[i] == 1 || AGAIN(ret, key, i)) -> \
       k = i; what = DISABLE; MAY(claim); MAY(noteDisable); holder = me; c = cur; NOTEDISABLE(i); wrote() } goto mayRetire \
  :: d_step { IDLE && ret[i] == 2 && key[i] != 1 -> \
       k = i; what = DELETE; MAY(claim); MAY(noteDelete); holder = me; c = cur; NOTEDELETE(i); wrote() } goto mayRetire
#define SWEEP(i) :: d_step { SWEPT(i) && (key[i] == 1 || key[i] == 2) -> k = i; apply(DELETE, k); k = 0 } goto start
#define ROLLBACK(i) \
  :: d_step { rollbacks < ROLLBACKS && MAYCOMEBACK(i) && key[i] != 3 -> rollbacks++; k = i } goto rollback

proctype Process(byte me) {
  byte k, c, saw;               /* the key in work; the current one when the claim was taken; that of the record */
  byte what;                    /* of a retirement: DISABLE or DELETE */
  bit rb, rev, ok;              /* a rollback; with --revoke-now; the call had a definite answer */

start:
  if
  /* rotate: claim and intent are one write */
  :: d_step { IDLE && rotations < ROTATIONS ->
       rotations++; k = N - 1 - ROTATIONS + rotations; MAY(claim); MAY(intend); holder = me; intent = k; back = 0; c = cur; wrote(); rfresh[me] = 1 } goto look
  :: d_step { IDLE && rotations < ROTATIONS && revokes < REVOKES ->
       rotations++; revokes++; rev = 1;
       k = N - 1 - ROTATIONS + rotations; MAY(claim); MAY(intend); holder = me; intent = k; back = 0; c = cur; wrote(); rfresh[me] = 1 } goto look
  ROLLBACK(0) ROLLBACK(1)
  /* settle what another process left */
  :: d_step { holder != 0 && holder != me && intent == NONE -> MAY(takeover); holder = me; wrote() } goto release
  :: d_step { holder != 0 && holder != me && intent != NONE -> MAY(takeover); holder = me; k = intent; rb = back; c = cur; wrote() } goto fence
#ifdef RETIRING
  /* a former key leaves; one in quarantine that a late call enabled is disabled again */
  RETIRE(0) RETIRE(1)
  /* a current key that a late call disabled is enabled again */
  :: d_step { IDLE && key[cur] == 2 && toDisable[cur] != 0 -> k = cur; MAY(claim); MAY(noteEnable); holder = me; NOTEENABLE(k); wrote() } goto undo
#endif
  /* a person rolled the record back */
  :: d_step { IDLE && rkey != cur && ret[rkey] != 0 && FOLLOWED(rkey) ->
       k = rkey; fresh[me] = 1 } goto follow
  /* an abandoned key can never become current: it is deleted by whatever old copy of the entry */
  SWEEP(1) SWEEP(2)
  fi;

rollback:                       /* it waits for its turn, and asks again under the claim */
  if
  :: d_step { IDLE && !STILLMAYCOMEBACK(k) -> forget() } goto start
  :: d_step { IDLE && STILLMAYCOMEBACK(k) ->
       MAY(claim); MAY(putback); MAY(noteEnable); holder = me; intent = k; back = 1; rb = 1; c = cur; NOTEENABLE(k); wrote(); rfresh[me] = 1 }
  fi;

look:
  if
  :: d_step { rb && rkey != c -> ok = 1 } goto undone
  :: d_step { (!rb || rkey == c) && rfresh[me] -> saw = rkey } goto make
  :: d_step { (!rb || rkey == c) && !rfresh[me] -> saw = rkey; rfresh[me] = 1 } goto renew
  DIE
  fi;

renew:                          /* the record moved since the intent: was that the fence of a takeover? */
  if
#ifdef BUG_NO_RENEWAL_AFTER_LOOK
  :: true
#else
  :: d_step { FRESH -> MAY(renew); wrote() }
  :: d_step { !FRESH -> forget() } goto start
#endif
  fi;

make:
  if
  :: d_step { !rb -> apply(CREATE, k) } goto publish
  :: d_step { rb && key[k] != 3 -> apply(ENABLE, k); ok = 1 } goto publish
  :: d_step { !rb } goto withdraw                       /* refused */
  :: d_step { rb -> ok = 1 } goto fence
  LOST(true, (rb -> ENABLE : CREATE), fence)
  fi;

publish:
  if
#ifdef BUG_PUBLISH_WITHOUT_CAS
  :: d_step { apply(PUBLISH, k); rfresh[me] = 0; saw = 0 } goto commit
#else
  :: d_step { rfresh[me] -> assert(!rb || !revoked[k]); apply(PUBLISH, k); rfresh[me] = 0; saw = 0 } goto commit
#endif
  :: d_step { !rfresh[me] } goto readBack
  LOST(rfresh[me], PUBLISH, readBack)
  fi;

readBack:
  if
  :: d_step { rkey == k -> rfresh[me] = 0; saw = 0 } goto commit
  :: d_step { rkey != k && rkey == saw && rfresh[me] } goto publish
  :: d_step { rkey != k && rkey == saw && !rfresh[me] -> rfresh[me] = 1 } goto renewed
  :: d_step { rkey != k -> saw = 0; rfresh[me] = 0 } goto fence         /* others changed it, or no more tries */
  fi;

renewed:                        /* … or was that? */
  if
#ifdef BUG_NO_RENEWAL_BEFORE_RETRY
  :: goto publish
#else
  :: d_step { FRESH -> MAY(renew); wrote() } goto publish
  :: d_step { !FRESH -> forget() } goto start
#endif
  fi;

commit:
  WRITE(MAY(commit);
#ifndef BUG_FORGET_THE_OLD_KEY
    if :: cur != k -> ret[cur] = 1; revoked[cur] = revoked[cur] || rev :: else fi;
#endif
    if :: rev && ret[0] == 1 -> revoked[0] = 1 :: else fi;
    if :: rev && ret[1] == 1 -> revoked[1] = 1 :: else fi;
    if :: rb && ok -> SETTLEDONE(toEnable[k]) :: else fi;
    cur = k; ret[k] = 0; holder = 0; intent = NONE; back = 0);

fence:
  if
  :: d_step { rkey == k } goto commit
  :: d_step { rkey != k -> rfresh[me] = 1 }
  DIE
  fi;
  if
  :: d_step { !rfresh[me] } goto fence
  :: d_step { rfresh[me] -> MAY(fence); rewrote() }
#ifdef BUG_NO_FENCE
  :: skip
#endif
  fi;
  if                            /* the versions of the record say whether it was published */
  :: d_step { rb } goto undone
  :: d_step { !rb && WASPUBLISHED(k) } goto commit
  :: d_step { !rb && !WASPUBLISHED(k) } goto abandon
  fi;

undone:                         /* a rollback is given up: its key leaves again */
  WRITE(MAY(giveup);
    if :: ret[k] == 2 -> ret[k] = 1 :: else fi;
    if :: ok -> SETTLEUNSENT(toEnable[k]) :: else fi;
    holder = 0; intent = NONE; back = 0);

abandon:                        /* whether it is listed or not, or not yet: its rotation is remembered */
  if
  :: d_step { FRESH && (key[k] == 1 || key[k] == 2) -> MAY(abandon); ABANDON intent = NONE; wrote() }
  :: d_step { FRESH -> MAY(abandon); ABSENT intent = NONE; holder = 0; wrote(); forget() } goto start
  :: d_step { !FRESH -> forget() } goto start
  DIE
  fi;
  if
  :: d_step { apply(DELETE, k) } goto release
  LOST(true, DELETE, release)
  fi;

mayRetire:
  if
#ifdef BUG_RETIRE_FROM_A_CACHE
  :: true
#else
  :: d_step { rkey != c -> ok = 1 } goto settled
  :: d_step { rkey == c }
#endif
  DIE
  fi;
  if
  :: d_step { key[c] != 1 || (what == DELETE && key[k] == 1) -> ok = 1 } goto settled
  :: d_step { key[c] == 1 && !(what == DELETE && key[k] == 1) }
  fi;
  if
  :: d_step { apply(what, k) }
  :: d_step { ok = 1 } goto settled                     /* refused */
  LOST(true, what, settled)
  fi;
  if                            /* was the record rolled back to the key before the call arrived? then the note stays */
#if defined(BUG_NO_SECOND_LOOK) || defined(BUG_RETIRE_FROM_A_CACHE)
  :: d_step { what == DISABLE }
#else
  :: d_step { what == DISABLE && rkey == k } goto settled
  :: d_step { what == DISABLE && rkey != k }
#endif
  :: d_step { what == DELETE }
  fi;
  WRITE(
    if
    :: what == DISABLE -> MAY(quarantine); ret[k] = 2; SETTLEDONE(toDisable[k])
    :: else -> MAY(leave); ret[k] = 0; toDisable[k] = 0; toEnable[k] = 0; toDelete[k] = 0
    fi;
    holder = 0);

settled:                        /* not done; what surely was not sent leaves no note */
  WRITE(
    if
    :: ok && what == DISABLE -> SETTLEUNSENT(toDisable[k])
    :: ok && what == DELETE -> SETTLEUNSENT(toDelete[k])
    :: else
    fi;
    holder = 0);

undo:
  if
  :: d_step { apply(ENABLE, k); ok = 1 }
  :: d_step { ok = 1 }                                  /* refused */
  LOST(true, ENABLE, undone2)
  fi;
undone2:
  WRITE(if :: ok -> UNDONE(k) :: else fi; holder = 0);

follow:
  WRITE(MAY(follow); ret[cur] = 1; ret[k] = 0; cur = k);

withdraw:
  WRITE(MAY(withdraw); holder = 0; intent = NONE);

release:
  WRITE(MAY(release); holder = 0)
}

/* Calls arrive late. */
#define DELIVER(i) :: d_step { late[i] != 0 -> c = late[i] / 16; k = late[i] & 15; late[i] = 0; apply(c, k); c = 0; k = 0 }
proctype Network() {
  byte c, k;
  do
  DELIVER(0)
  DELIVER(1)
  od
}

/* Others write the record: a field of theirs, or an older version of it (vault kv rollback). */
#define KVROLLBACK(i) \
  :: d_step { persons < PERSON && published[i] && i != rkey -> \
       persons++; waived = (key[i] != 1 || toDelete[i] != 0 || revoked[i]); rkey = i; rewrote() }
proctype Person() {
  do
  :: d_step { rfresh[1] || rfresh[2] || (late[0] >> 4) == PUBLISH || (late[1] >> 4) == PUBLISH -> rewrote() }
  KVROLLBACK(0) KVROLLBACK(1) KVROLLBACK(2)
  od
}

/* What holds in every state; and what comes of it when nothing goes wrong any more: a healthy daemon, alone, brings all
   in order. It works on a copy, so that judging adds no states. */
hidden byte xkey[N]; hidden byte xret[N]; hidden byte xcur; hidden byte xi;
#ifdef ASK                      /* look for one kind of fault only */
#define ASKED(n) (ASK == (n))
#else
#define ASKED(n) true
#endif
#define ALL(todo) xi = 0; do :: xi < N -> todo; xi++ :: else -> break od

proctype Judge() {
  do
  :: d_step {
       assert(!ASKED(1) || waived || key[rkey] != 3);
       assert(!ASKED(2) || waived || key[rkey] != 2 || toDisable[rkey] != 0);
       assert(!ASKED(4) || (!abandoned[cur] && toDelete[cur] == 0));
       assert(!ASKED(4) || (!(abandoned[1] && published[1]) && !(abandoned[2] && published[2])));

       ALL(xkey[xi] = key[xi]; xret[xi] = ret[xi]);
       xcur = cur;
       if                       /* recover */
       :: intent == NONE
       :: intent != NONE && (rkey == intent || (WASPUBLISHED(intent) && !back)) -> xret[cur] = 1; xcur = intent; xret[xcur] = 0
       :: intent != NONE && back && rkey != intent -> if :: xret[intent] == 2 -> xret[intent] = 1 :: else fi
       :: else -> if :: xkey[intent] != 0 -> xkey[intent] = 3 :: else fi
       fi;
       if                       /* follow */
       :: rkey != xcur && xret[rkey] != 0 && FOLLOWED(rkey) ->
            xret[xcur] = 1; xcur = rkey; xret[xcur] = 0
       :: else
       fi;
       if :: xkey[xcur] == 2 && toDisable[xcur] != 0 -> xkey[xcur] = 1 :: else fi;              /* undo a disable */
       ALL(if :: SWEPT(xi) && xkey[xi] != 0 -> xkey[xi] = 3 :: else fi);                    /* sweep */
       if                       /* disable, also again */
       :: rkey == xcur && xkey[xcur] == 1 ->
            ALL(if
                :: xret[xi] == 1 || AGAIN(xret, xkey, xi) -> xret[xi] = 2; if :: xkey[xi] == 1 -> xkey[xi] = 2 :: else fi
                :: else
                fi);
            ALL(assert(!ASKED(3) || xret[xi] != 2 || xkey[xi] != 1))
       :: else
       fi;
       assert(!ASKED(4) || waived || (rkey == xcur && xkey[rkey] == 1));
       ALL(assert(!ASKED(4) || xkey[xi] == 0 || xkey[xi] == 3 || xi == xcur || xret[xi] != 0));
       xi = 0
     }
  od
}

init {
  atomic {
    key[0] = 1; published[0] = 1;
#ifdef REPLACED                 /* key 1 has just replaced key 0 */
    key[1] = 1; published[1] = 1; rkey = 1; cur = 1; ret[0] = 1;
#endif
    run Process(1); run Process(2); run Network(); run Person(); run Judge()
  }
}
