package conn

import "time"

// Profile is what of a Config many connections have in common: a listener's
// all do, until a user changes something. It never changes, so that they may
// share one.
type Profile struct {
	minRTO, maxRTO      time.Duration
	retries, synRetries int
	timeWait, finWait2  time.Duration
	invalidRateLimit    time.Duration
	gsoMax              int
	delayedACK, rack    bool
	noIdleRestart       bool
	likeLinux           bool
	leastBurst          int // segments; 0: leastBurst
	congestion          string
	opts                UserOptions
}

// unset is the profile of a connection that has not begun.
var unset Profile

// Share returns the Profile that cfg makes: the one it brings, if that says the
// same.
func (cfg *Config) Share() *Profile {
	p := Profile{
		minRTO:     orDefault(cfg.MinRTO, DefaultMinRTO),
		maxRTO:     orDefault(cfg.MaxRTO, DefaultMaxRTO),
		retries:    orDefault(cfg.Retries, DefaultRetries),
		synRetries: orDefault(cfg.SYNRetries, DefaultSYNRetries),
		timeWait:   orDefault(cfg.TimeWait, DefaultTimeWait),
		finWait2:   orDefault(cfg.FinWait2, DefaultFinWait2),
		gsoMax:     cfg.GSOMax,
		delayedACK: cfg.DelayedACK,

		invalidRateLimit: cfg.InvalidRateLimit,
		noIdleRestart:    cfg.NoIdleRestart,
		likeLinux:        cfg.LikeLinux,
		leastBurst:       cfg.LeastBurst,
		rack:             cfg.RACK,
		congestion:       cfg.Congestion,
		opts:             cfg.Options,
	}
	p.opts.Keepalive = p.opts.Keepalive.normal()
	if cfg.Profile != nil && *cfg.Profile == p {
		return cfg.Profile
	}
	return p.copy()
}

func (p Profile) copy() *Profile { return &p }

// begun prepares a zero Conn to be looked at, and returns its parameters.
func (c *Conn) begun() *params {
	if c.cfg.Profile == nil {
		c.cfg.Profile = &unset
		c.beOrdinary()
	}
	return &c.cfg
}

// setOptions sets the user's settings, if they are others.
func (c *Conn) setOptions(o *UserOptions) {
	if *o != c.cfg.opts {
		c.change().opts = *o
	}
}

// change gives the connection a profile of its own, to be written to before
// anything else happens.
func (c *Conn) change() *Profile {
	c.cfg.Profile = c.begun().Profile.copy()
	return c.cfg.Profile
}
