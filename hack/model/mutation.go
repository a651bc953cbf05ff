package model

// mutation is a way of breaking the protocol: one rule is not kept.
type mutation string

const (
	sound mutation = "" // every rule is

	takeBackAfterCut     mutation = "the source takes the VM back when RUNNING does not come"
	takeBackAtDeadline   mutation = "the source takes the VM back when the destination does not come back in time"
	writtenIsNot         mutation = "the source takes the VM back when an error came after all of POSTCOPY_RUN was written"
	partIsWritten        mutation = "the source takes a part of POSTCOPY_RUN for all of it"
	cancelAfterRun       mutation = "the source accepts Cancel after POSTCOPY_RUN"
	runAlthoughCancelled mutation = "the source does not look at committed and detach before POSTCOPY_RUN"
	failedIsBroken       mutation = "the source takes FAILED after POSTCOPY_RUN for a broken connection"
	eofIsSuccess         mutation = "the source takes an end of file for SHUT 0"
	takesBackUnsure      mutation = "a person takes the VM back without having made sure that the destination does not run it"
	resumeAfterShut      mutation = "the source lets its user resume a VM that has gone"
	givesUpSilently      mutation = "the destination gives up after LOADED and does not say FAILED"
	failedThenLeaves     mutation = "the destination says FAILED after LOADED and does not wait for the answer"
	runAfterFailed       mutation = "the destination obeys POSTCOPY_RUN after it has said FAILED"
	startFailsSilently   mutation = "the destination does not say FAILED when its vCPUs cannot be started"
	ackLies              mutation = "the destination says RESUME_ACK(loaded) while the guest runs there"
	eofIsHeard           mutation = "the destination takes an end of file for the answer to SHUT"
	stopsAtDeadline      mutation = "the destination stops a guest that needs pages when the source does not come back in time"
	endedThenLeaves      mutation = "the destination does not wait for the answer to SHUT when the guest has ended"
)
