package cc

func newReno(mss int) Controller  { return nil }
func newCubic(mss int) Controller { return nil }
