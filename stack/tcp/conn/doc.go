// Package conn is one TCP connection, and nothing else: no locks, goroutines,
// clocks, randomness or logging, and no I/O. Segments go in by Input and come
// out by Output; time goes in as a value. Everything it does follows from what
// it was given, so that a test, a fuzzer or a simulator can drive it exactly.
//
//	segment in -> Input -> (state, queues, timers) -> Output -> segment out
//
// Input never answers by itself: an answer is owed, and Output pays. So
// acknowledgements coalesce over a batch, a burst leaves as one large segment,
// and a link that is full simply does not ask.
//
// A Conn is not safe for concurrent use.
package conn
