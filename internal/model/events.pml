/* What each event of the protocol needs, at the moment when it is carried out, however late that is. rekeyd.pml asserts it
   where it takes the event, and Checker asks it of every call of the simulation: both read this file. One line for each
   event, with && || ! and facts only. The facts are about the ledger entry as it is just before (a note and the key that it
   is about: just after), one key and whoever writes; rekeyd.pml and facts in checker.go say what each means there. */

/* writes of the ledger entry */
#define MAY_claim       !CLAIMED && !BEGUN
#define MAY_takeover    CLAIMED && !MINE
#define MAY_renew       MINE
#define MAY_release     MINE
#define MAY_intend      !BEGUN && UNUSED
#define MAY_putback     !BEGUN && FORMER && !TODELETE && !REVOKED
#define MAY_commit      MINE && INTENDED && PUBLISHED && !ABANDONED && !TODELETE
#define MAY_abandon     MINE && INTENDED && !PUBLISHED && !CURRENT && !FORMER
#define MAY_withdraw    MINE && INTENDED && !MADE
#define MAY_giveup      MINE && INTENDED && FORMER
#define MAY_follow      !CLAIMED && !BEGUN && FORMER && PUBLISHED && !TODELETE
#define MAY_noteDisable FORMER && !CURRENT
#define MAY_noteEnable  FORMER || CURRENT
#define MAY_noteDelete  FORMER && !CURRENT
#define MAY_quarantine  MINE && FORMER
#define MAY_leave       MINE && !CURRENT && GONE

/* writes of the record */
#define MAY_publish     INTENDED && !ABANDONED && !TODELETE
#define MAY_fence       SAME

/* calls about keys */
#define MAY_create      (INTENDED || ABANDONED) && !CURRENT && !FORMER
#define MAY_disable     TODISABLE
#define MAY_enable      TOENABLE
#define MAY_delete      (TODELETE || ABANDONED) && !CURRENT

/* adoption.pml has these */
#define MAY_adopt       !CLAIMED && !BEGUN && !ABANDONED && !TODELETE && RESERVED
#define MAY_disown      !CURRENT && !FORMER && !INTENDED

/* no model has these: a version of the record that cannot be read, a removed policy, the end of a memory, other names */
#define MAY_keep        MINE && INTENDED
#define MAY_unseat      !CLAIMED && !BEGUN && CURRENT
#define MAY_forget      !MADE
#define MAY_give        !BEGUN || MOVED
#define MAY_take        GIVEN
