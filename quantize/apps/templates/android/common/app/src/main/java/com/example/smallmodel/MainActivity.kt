package com.example.smallmodel

import android.app.Activity
import android.os.Bundle
import android.util.Log
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import java.util.concurrent.Executors

/** A text, a button, the answer and the profile, which also goes to the log: adb logcat -s SmallModel */
class MainActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor()
    private var model: Model? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val question = EditText(this).apply { hint = "A text for the model" }
        val run = Button(this).apply { text = "Run"; isEnabled = false }
        val answer = TextView(this).apply { text = "loading" }
        val profile = TextView(this).apply { textSize = 12f }
        val column = LinearLayout(this).apply { orientation = LinearLayout.VERTICAL }
        listOf(question, run, answer, profile).forEach(column::addView)
        setContentView(ScrollView(this).apply { fitsSystemWindows = true; addView(column) })

        fun inBackground(work: () -> Unit) = worker.execute {
            try {
                work()
            } catch (failure: Exception) {
                runOnUiThread { answer.text = "error: ${failure.message}" }
            }
            runOnUiThread { run.isEnabled = model != null }
        }

        inBackground {
            model = Model(copiedAsset("model"))
            runOnUiThread { answer.text = "ready" }
        }
        run.setOnClickListener {
            run.isEnabled = false
            val asked = question.text.toString()
            inBackground {
                val found = model!!.run(asked, REPEATS) { text -> runOnUiThread { answer.text = text } }
                Log.i("SmallModel", found)
                runOnUiThread { profile.text = found }
            }
        }
    }

    override fun onDestroy() {
        worker.execute { model?.close() }
        worker.shutdown()
        super.onDestroy()
    }

    private companion object {
        const val REPEATS = 5
    }
}
