package packetdrill

import (
	"errors"
	"fmt"
	"strings"
)

// constants are the names that scripts use for numbers, with Linux's values.
var constants = map[string]int64{
	"NULL": 0, "INADDR_ANY": 0,
	"AF_UNSPEC": 0, "AF_INET": 2, "AF_INET6": 10, "PF_INET": 2, "PF_INET6": 10,
	"SOCK_STREAM": 1, "SOCK_DGRAM": 2, "SOCK_NONBLOCK": oNonblock, "SOCK_CLOEXEC": 0x80000,
	"IPPROTO_IP": 0, "IPPROTO_ICMP": 1, "IPPROTO_TCP": 6, "IPPROTO_UDP": 17, "IPPROTO_IPV6": 41,
	"SOL_SOCKET": 1, "SOL_IP": 0, "SOL_TCP": 6, "SOL_IPV6": 41,
	"SHUT_RD": 0, "SHUT_WR": 1, "SHUT_RDWR": 2,
	"F_GETFD": 1, "F_SETFD": 2, "F_GETFL": 3, "F_SETFL": 4,
	"O_RDONLY": 0, "O_WRONLY": 1, "O_RDWR": oRdwr, "O_NONBLOCK": oNonblock,
	"POLLIN": 0x1, "POLLPRI": 0x2, "POLLOUT": 0x4, "POLLERR": 0x8, "POLLHUP": 0x10, "POLLNVAL": 0x20,
	"POLLRDNORM": 0x40, "POLLWRNORM": 0x100, "POLLRDHUP": 0x2000,
	"EPOLLIN": 0x1, "EPOLLPRI": 0x2, "EPOLLOUT": 0x4, "EPOLLERR": 0x8, "EPOLLHUP": 0x10,
	"EPOLLRDNORM": 0x40, "EPOLLWRNORM": 0x100, "EPOLLRDHUP": 0x2000,
	"EPOLLEXCLUSIVE": 1 << 28, "EPOLLONESHOT": epollOneshot, "EPOLLET": epollET,
	"EPOLL_CTL_ADD": epollAdd, "EPOLL_CTL_DEL": epollDel, "EPOLL_CTL_MOD": epollMod,
	"MSG_OOB": msgOOB, "MSG_PEEK": msgPeek, "MSG_TRUNC": msgTrunc, "MSG_DONTWAIT": msgDontwait, "MSG_EOR": msgEOR,
	"MSG_FASTOPEN": msgFastopen, "MSG_WAITALL": msgWaitall, "MSG_NOSIGNAL": 0x4000, "MSG_MORE": msgMore, "MSG_CTRUNC": 0x8,
	"IP_PMTUDISC_DONT": 0, "IP_PMTUDISC_WANT": 1, "IP_PMTUDISC_DO": 2, "IP_PMTUDISC_PROBE": 3,
	"IPV6_PMTUDISC_DONT": 0, "IPV6_PMTUDISC_WANT": 1, "IPV6_PMTUDISC_DO": 2, "IPV6_PMTUDISC_PROBE": 3,
	"TCP_ESTABLISHED": 1, "TCP_SYN_SENT": 2, "TCP_SYN_RECV": 3, "TCP_FIN_WAIT1": 4, "TCP_FIN_WAIT2": 5,
	"TCP_TIME_WAIT": 6, "TCP_CLOSE": 7, "TCP_CLOSE_WAIT": 8, "TCP_LAST_ACK": 9, "TCP_LISTEN": 10, "TCP_CLOSING": 11,
	"TCP_CA_Open": 0, "TCP_CA_Disorder": 1, "TCP_CA_CWR": 2, "TCP_CA_Recovery": 3, "TCP_CA_Loss": 4,
	"TCPI_OPT_TIMESTAMPS": tcpiTimestamps, "TCPI_OPT_SACK": tcpiSACK, "TCPI_OPT_WSCALE": tcpiWScale,
	"TCPI_OPT_ECN": tcpiECN, "TCPI_OPT_ECN_SEEN": 16, "TCPI_OPT_SYN_DATA": tcpiSYNData,
	"TCP_REPAIR_ON": 1, "TCP_REPAIR_OFF": 0, "TCP_REPAIR_OFF_NO_WP": -1,
	"TCP_NO_QUEUE": 0, "TCP_RECV_QUEUE": 1, "TCP_SEND_QUEUE": 2,
	"TCPOPT_MSS": 2, "TCPOPT_WINDOW": 3, "TCPOPT_SACK_PERM": 4, "TCPOPT_TIMESTAMP": 8,
}

// Constants that the code has a use for.
const (
	oRdwr, oNonblock             = 0x2, 0x800
	epollAdd, epollDel, epollMod = 1, 2, 3
	epollOneshot, epollET        = 1 << 30, 1 << 31
	msgOOB, msgPeek, msgTrunc    = 0x1, 0x2, 0x20
	msgDontwait, msgEOR          = 0x40, 0x80
	msgWaitall, msgMore          = 0x100, 0x8000
	msgFastopen                  = 0x20000000
	tcpiTimestamps, tcpiSACK     = 1, 2
	tcpiWScale, tcpiECN          = 4, 8
	tcpiSYNData                  = 32
)

// eval is the number that an expression stands for.
func (r *runner) eval(e Expr) (int64, error) {
	switch e := e.(type) {
	case nil:
		return 0, errors.New("an argument is missing")
	case Int:
		return e.V, nil
	case Word:
		if v, ok := constants[e.Name]; ok {
			return v, nil
		}
		return 0, fmt.Errorf("there is no constant %s", e.Name)
	case Or:
		a, err := r.eval(e.L)
		if err != nil {
			return 0, err
		}
		b, err := r.eval(e.R)
		return a | b, err
	case Call:
		if e.Fn == "htons" && len(e.Args) == 1 {
			return r.eval(e.Args[0]) // byte order is the runner's business
		}
	case Array: // [1] is a pointer to 1
		if len(e.Elems) == 1 {
			return r.eval(e.Elems[0])
		}
	}
	return 0, fmt.Errorf("%s is no number", exprText(e))
}

// exprText writes an expression as scripts do.
func exprText(e Expr) string {
	switch e := e.(type) {
	case Ellipsis:
		return "..."
	case Int:
		return fmt.Sprint(e.V)
	case Word:
		return e.Name
	case Str:
		return fmt.Sprintf("%q", e.V)
	case Or:
		return exprText(e.L) + "|" + exprText(e.R)
	case Array:
		return "[" + exprList(e.Elems) + "]"
	case Call:
		return e.Fn + "(" + exprList(e.Args) + ")"
	case Struct:
		parts := make([]string, len(e.Fields))
		for i, f := range e.Fields {
			if f.Name != "" {
				parts[i] = f.Name
				if f.Arg != nil {
					parts[i] += "(" + exprText(f.Arg) + ")"
				}
				parts[i] += "="
			}
			parts[i] += exprText(f.V)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return "nothing"
}

func exprList(list []Expr) string {
	parts := make([]string, len(list))
	for i := range list {
		parts[i] = exprText(list[i])
	}
	return strings.Join(parts, ", ")
}

// flagsText writes a set of bits with the names that begin with a prefix.
func flagsText(prefix string, v int64, names ...string) string {
	var parts []string
	for _, n := range names {
		if bit := constants[prefix+n]; v&bit != 0 {
			parts = append(parts, prefix+n)
			v &^= bit
		}
	}
	if v != 0 || parts == nil {
		parts = append(parts, fmt.Sprint(v))
	}
	return strings.Join(parts, "|")
}
