// Package house holds no code, only the tests that keep the house rules: who
// may import whom, what the connection and its congestion control may not
// touch, how long a file may be, and how it is formatted.
//
// A rule here that stands in the way of something good is changed here, in the
// commit that needs it, where everybody sees it.
package house
