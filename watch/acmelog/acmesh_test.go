package acmelog

import (
	"testing"
	"time"
	_ "time/tzdata" // the zones of the table
)

// Dates as date(1) of glibc 2.36 prints them: with LC_ALL and TZ set.
func TestStamps(t *testing.T) {
	for _, c := range []struct{ language, text, want string }{
		{"C", "Sun Nov 22 07:46:17 UTC 2026", "2026-11-22T07:46:17Z"},
		{"C", "Tue Mar  3 17:06:07 CET 2026", "2026-03-03T16:06:07Z"},
		{"C", "Sun Jul  5 00:06:07 CEST 2026", "2026-07-04T22:06:07Z"},
		{"en_US", "Sun Nov 22 07:46:17 AM CET 2026", "2026-11-22T06:46:17Z"},
		{"en_US", "Tue Mar  3 05:06:07 PM CET 2026", "2026-03-03T16:06:07Z"},
		{"en_US", "Sun Jul  5 12:06:07 AM UTC 2026", "2026-07-05T00:06:07Z"},
		{"en_US, before glibc 2.33", "Sun 22 Nov 2026 07:46:17 AM EST", "2026-11-22T12:46:17Z"},
		{"en_GB", "Sun 22 Nov 07:46:17 GMT 2026", "2026-11-22T07:46:17Z"},
		{"de_DE", "Di 3. Mär 17:06:07 CET 2026", "2026-03-03T16:06:07Z"},
		{"de_AT", "Di 03 Mär 2026 17:06:07 CET", "2026-03-03T16:06:07Z"},
		{"fr_FR", "mar. 03 mars 2026 17:06:07 CET", "2026-03-03T16:06:07Z"},
		{"fr_FR, before glibc 2.33", "dimanche 22 novembre 2026, 07:46:17 (UTC+0100)", "2026-11-22T06:46:17Z"},
		{"es_ES", "mar 24 nov 2026 07:46:17 CET", "2026-11-24T06:46:17Z"},
		{"it_IT", "dom 22 nov 2026, 07:46:17, CET", "2026-11-22T06:46:17Z"},
		{"pt_BR", "dom 22 nov 2026 07:46:17 -03", "2026-11-22T10:46:17Z"},
		{"nl_NL", "zo 22 nov 2026  7:46:17 CET", "2026-11-22T06:46:17Z"},
		{"da_DK", "søn 22 nov 07:46:17 CET 2026", "2026-11-22T06:46:17Z"},
		{"nb_NO", "sø. 22. nov. 07:46:17 +0100 2026", "2026-11-22T06:46:17Z"},
		{"fi_FI", "su 22.11.2026 07.46.17 +0100", "2026-11-22T06:46:17Z"},
		{"pl_PL", "nie, 22 lis 2026, 07:46:17 CET", "2026-11-22T06:46:17Z"},
		{"cs_CZ", "Ne\u00a022.\u00a0listopadu\u00a02026,\u00a007:46:17\u00a0CET", "2026-11-22T06:46:17Z"},
		{"hu_HU", "2026. nov. 22., vasárnap, 07:46:17 CET", "2026-11-22T06:46:17Z"},
		{"ro_RO", "duminică 22 noiembrie 2026, 07:46:17 +0100", "2026-11-22T06:46:17Z"},
		{"ca_ES", "diumenge, 1 de març de 2026, 17:06:07 CET", "2026-03-01T16:06:07Z"},
		{"lt_LT", "2026 m. lapkričio 22 d. 07:46:17 CET", "2026-11-22T06:46:17Z"},
		{"lv_LV", "svētdiena, 2026. gada 22. novembris, 07:46:17 CET", "2026-11-22T06:46:17Z"},
		{"tr_TR", "Paz 22 Kas 2026 07:46:17 +03", "2026-11-22T04:46:17Z"},
		{"ru_RU", "Вс 22 ноя 2026 07:46:17 MSK", "2026-11-22T04:46:17Z"},
		{"uk_UA", "неділя, 22 листопада 2026 07:46:17 +0200", "2026-11-22T05:46:17Z"},
		{"el_GR", "Κυρ 01 Μαρ 2026 05:06:07 μμ CET", "2026-03-01T16:06:07Z"},
		{"zh_CN", "2026年 11月 22日 星期日 07:46:17 CST", "2026-11-21T23:46:17Z"},
		{"zh_TW", "西元2026年11月22日 (週日) 07時46分17秒 CET", "2026-11-22T06:46:17Z"},
		{"ja_JP", "2026年  3月  1日 日曜日 17:06:07 JST", "2026-03-01T08:06:07Z"},
		{"ko_KR", "2026. 11. 22. (일) 07:46:17 KST", "2026-11-21T22:46:17Z"},
		{"th_TH", "อา. 22 พ.ย. 2569 07:46:17 CET", "2026-11-22T06:46:17Z"},
		{"the second 02:30 of the night", "Sun Oct 25 02:30:00 CET 2026", "2026-10-25T01:30:00Z"},
		{"the first one", "Sun Oct 25 02:30:00 CEST 2026", "2026-10-25T00:30:00Z"},
	} {
		zone, err := time.LoadLocation("Europe/Berlin")
		if c.language == "zh_CN" { // CST means three things
			zone, err = time.LoadLocation("Asia/Shanghai")
		}
		if err != nil {
			t.Fatal(err)
		}
		line := []byte("[" + c.text + "] ===Starting cron===")
		stamp, rest, ok := cutStamp(line)
		if !ok || string(rest) != "===Starting cron===" {
			t.Errorf("%s: %q is not taken off", c.language, line)
			continue
		}
		if got := parseStamp(stamp, zone).Format(time.RFC3339); got != c.want {
			t.Errorf("%s: %q is %s, want %s", c.language, c.text, got, c.want)
		}
	}
}

func TestNoStamps(t *testing.T) {
	for _, text := range []string{"", "[", "[]", "[] x", "[emerg] bind() failed", "[1/30] x", "[notice] 123#123: signal 17", "[Sun Nov 22 07:46:17 UTC 2026]x", "[2001:db8::1] x"} {
		if stamp, _, ok := cutStamp([]byte(text)); ok {
			t.Errorf("%q: %q is taken for a date", text, stamp)
		}
	}
	for _, text := range []string{"07:46:17", "Sun Foo 22 07:46:17 UTC 2026", "99.99.2026 07:46:17", "31 07:46:17 2026"} {
		if at := parseStamp([]byte(text), time.UTC); !at.IsZero() {
			t.Errorf("%q is %v", text, at)
		}
	}
}
